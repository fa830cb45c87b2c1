"""Runs that Ctrl-C stops at random moments end in order; `tests/stops.py` can do many more of them."""

import pytest

from tests.processes import python


@pytest.mark.slow
def test_runs_that_are_stopped_at_random_moments_exit_with_130():
    done = python("-m", "tests.stops", 6)
    assert (done.returncode, done.stdout) == (0, "6 x 130\n"), done.stdout + done.stderr

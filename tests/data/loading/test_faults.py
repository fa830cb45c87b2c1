"""Each fault of a loader is one line with its remedy."""

import signal

import pytest

from ramstrans.data.loading.faults import death, loader_errors
from ramstrans.errors import DataError


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            -signal.SIGKILL,
            "killed by SIGKILL, as the system does when memory runs out) while reading a; give fewer",
        ),
        (-signal.SIGBUS, "(shared memory is full"),
        (28, "(shared memory is full"),
        (24, "(too many open files); raise the limit (ulimit -n"),
        (12, "(no memory left); give fewer --data.num_workers"),
        (-signal.SIGSEGV, "(SIGSEGV) while reading a; repair or remove that file"),
        (3, "(exit code 3) while reading a; repair or remove that file"),
        (0, "(exit code 0) while reading a;"),
    ],
)
def test_a_death_says_why_and_what_to_do(code, message):
    assert message in str(death([None, code], ["a"]))


def test_the_files_are_not_blamed_for_full_memory():
    assert "wren.jpg" not in str(death([-signal.SIGBUS], ["wren.jpg"]))
    assert "see what it wrote above" in str(death([1], []))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            TimeoutError("timed out after 3 seconds"),
            r"no batch came in time .* while reading a; b; c; d; and 1 more;",
        ),
        (
            RuntimeError("DataLoader timed out after 3 seconds"),
            r"no batch came in time .*--data\.read_timeout",
        ),
        (MemoryError(), r"no memory left to load images while reading a;.*--data\.num_workers"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "no memory left"),
        (OSError(12, "Cannot allocate memory"), r"no memory left.*--data\.num_workers"),
        (OSError(28, "No space left on device"), r"shared memory is full.*--shm-size"),
        (OSError(24, "Too many open files"), r"too many open files.*ulimit"),
        (RuntimeError("Too many open files. Communication with the workers is no longer"), "ulimit"),
    ],
)
def test_errors_of_a_loader_are_one_line(error, message):
    with pytest.raises(DataError, match=message) as caught, loader_errors(lambda: list("abcde")):
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not fit"), OSError(2, "No such file or directory")]
)
def test_an_error_of_another_kind_stays_what_it_is(error):
    with pytest.raises(type(error)) as caught, loader_errors():
        raise error
    assert caught.value is error

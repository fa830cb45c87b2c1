"""What the tests of several commands use."""

import os
import subprocess
import sys


def process(*arguments, **options):
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ramstrans", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "120", "OMP_NUM_THREADS": "1"},
        timeout=600,
        **options,
    )

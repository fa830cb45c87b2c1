"""Runs of `ramstrans train` by several processes, as `torchrun` starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {
    **{"OMP_NUM_THREADS": "1", "COLUMNS": "200", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    "PYTHONFAULTHANDLER": "1",  # for `last_words`
}
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "ramstrans")


def python(*arguments):
    """Run Python to its end; it must not take longer than twenty minutes."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
        cwd=ROOT,
        timeout=1200,
    )


def forked(*runs):
    """Run commands one after the other, each by some processes, given first; what each of them said.

    Every process must end well. See `forking`.
    """
    wanted = [(count, list(map(str, arguments))) for count, *arguments in runs]
    done = python("-m", "tests.training.fork_server", json.dumps(wanted))
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    for (count, arguments), (codes, said) in zip(wanted, outcomes, strict=True):
        assert codes == [0] * count, (arguments, said)
    return [said for _, said in outcomes]


def start(*arguments):
    """Start Python in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=ENVIRONMENT,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def processes_of(process):
    """The numbers of a process and of all below it."""
    return [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]


def last_words(process):
    """End a process and all below it; what they said, and where each of them stood."""
    for pid in processes_of(process):  # from above: one whose child has died goes elsewhere
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGABRT)
        time.sleep(0.1)  # one after the other, in one stream
    process.kill()
    return process.communicate()[1]


def wait_for(condition, process, seconds=120):
    """Wait until something is so, while a process goes on."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, last_words(process)
        time.sleep(0.01)

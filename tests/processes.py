"""Commands in real processes, most of them forked from one server that imports everything once.

Importing torch and timm takes about 5 CPU-seconds; a fork takes milliseconds. Each forked process leads a
session and process group of its own, so that a signal can be sent to it together with its loader's workers.
"""

import atexit
import faulthandler
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"COLUMNS": "200"}  # the rest is set in conftest.py
LIMIT = 300
"""Seconds a process may take before it counts as hung; far more than any needs, even on a busy machine."""
GRACE = 20
"""Seconds that the other ranks have to end when one has failed."""

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        *("tests.processes", "pytest", "peft", "scipy.stats"),
        *("torch.distributed.checkpoint", "torch.distributed.fsdp", "torch.utils.tensorboard"),
        *("ramstrans.training.run", "ramstrans.training.loop", "ramstrans.evaluation.evaluate"),
        *("ramstrans.inference.predictor", "ramstrans.cli"),
    ]
)


class Finished(NamedTuple):
    """How a process ended, and its output; `returncode` is minus the signal that killed it, if one did."""

    returncode: int
    stdout: str
    stderr: str


class Child:
    """A forked process.

    Args:
        function: Called with the arguments; returns the exit code. Pickled, as in `multiprocessing`.
        arguments: Its arguments.
        environment: Variables added to `ENVIRONMENT`.
        stdin: Text of its standard input.
        cwd: The folder it runs in.
    """

    def __init__(self, function, *arguments, environment=None, stdin="", cwd=None):
        self.folder = Path(tempfile.mkdtemp())
        self.finished = None
        for name, text in {"stdin": stdin, "stdout": "", "stderr": ""}.items():
            (self.folder / name).write_text(text)
        place = (self.folder, environment or {}, cwd or ROOT)
        self.process = SERVER.Process(target=_child, args=(*place, function, *arguments))
        self.process.start()
        atexit.register(self.kill)

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.is_alive()

    def pids(self):
        """The process and everything below it."""
        return [self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))]

    def kill(self):
        """Kill the process and its group, if they still exist."""
        self.process.kill()  # which may not lead a group yet
        signal_group(self.pid, signal.SIGKILL)

    def wait(self, seconds=LIMIT):
        """The finished process; one that takes longer is killed, and its stack is in the error."""
        if self.finished is None:
            self.process.join(seconds)
            hung = self.running()
            if hung:
                signal_group(self.pid, signal.SIGABRT)  # faulthandler writes the stack of every thread
                self.process.join(GRACE)
                self.kill()
                self.process.join()
            output = ((self.folder / name).read_text() for name in ("stdout", "stderr"))
            self.finished = Finished(self.process.exitcode, *output)
            shutil.rmtree(self.folder)
            atexit.unregister(self.kill)
            assert not hung, self.finished.stderr
        return self.finished

    def wait_for(self, condition, seconds=LIMIT):
        """Wait until a condition holds while the process runs."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.running(), self.wait()
            if time.monotonic() > end:
                self.wait(0)
            time.sleep(0.005)


def signal_group(pid, number):
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def _child(folder, environment, cwd, function, *arguments):
    multiprocessing.set_start_method(None, force=True)  # as in a new Python, where the server's would be used
    os.setsid()
    for stream, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(os.open(folder / name, os.O_APPEND | os.O_RDWR), stream)
    sys.stdin = os.fdopen(0, closefd=False)  # the server has closed its own
    faulthandler.enable()
    os.environ.update(ENVIRONMENT | environment)
    os.chdir(cwd)
    sys.exit(function(*arguments))


def run_main(arguments, prepare=None):
    """Run `ramstrans ARGUMENTS` in this process; `prepare` may patch it before."""
    from ramstrans.cli import main

    if prepare is not None:
        prepare()
    return main(arguments)


def start(*arguments, prepare=None, **options):
    """Start `ramstrans ARGUMENTS` in a fork."""
    return Child(run_main, list(map(str, arguments)), prepare, **options)


def run(*arguments, **options):
    """Run `ramstrans ARGUMENTS` in a fork to its end."""
    return start(*arguments, **options).wait()


def start_ranks(count, function, *arguments):
    """Start processes of a group, as `torchrun` does; the store they meet at lives as long as the first."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # the system picks a free port
    group = {
        **{"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"},
        **{"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"},
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    children = [
        Child(function, *arguments, environment=group | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]
    children[0].store = store
    return children


def wait_ranks(children):
    """All ranks, finished; when one fails, the others must end soon."""
    end = time.monotonic() + LIMIT
    while any(child.running() for child in children):
        if any(child.process.exitcode for child in children):
            end = min(end, time.monotonic() + GRACE)
        if time.monotonic() > end:
            return [child.wait(0) for child in children if child.running()]
        time.sleep(0.01)
    return [child.wait() for child in children]


def run_ranks(count, *arguments, prepare=None):
    """Run `ramstrans ARGUMENTS` by some ranks, which must all succeed; the first one's output."""
    words = list(map(str, arguments))
    children = start_ranks(count, run_main, words, prepare) if count > 1 else [start(*words, prepare=prepare)]
    done = wait_ranks(children)
    assert [rank.returncode for rank in done] == [0] * count, done
    return done[0]


def has_ended(pid):
    """Whether a process is gone, or dead and not yet waited for."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition, seconds=LIMIT):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def log_every_step():
    """Log every step and draw no figures."""
    from ramstrans.evaluation.report import write
    from ramstrans.training import loop

    loop.LOG_EVERY = 1
    for name in ("plot_curves", "plot_gallery", "plot_confusion", "report_page", "labels_html"):
        setattr(write, name, lambda *_, **__: "")


def python(*arguments, env=ENVIRONMENT, cwd=ROOT):
    """Run a new Python to its end."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd=cwd,
        timeout=LIMIT,
    )

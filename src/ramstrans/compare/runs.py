"""The runs of a plan, each a process of `ramstrans train`: claimed, started, stopped, resumed.

A run is claimed by a lock on a file, which its process inherits: the lock is held exactly as long as somebody
trains the run, whatever becomes of the process that started it, and the system lets go of it.
"""

import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ramstrans.compare.plan import Run, as_word
from ramstrans.console import format_duration
from ramstrans.cores import num_cores
from ramstrans.errors import UsageError
from ramstrans.files import make_folder
from ramstrans.interrupts import check_interrupted
from ramstrans.plain import counted
from ramstrans.training.config import OPTIONS_FILE, WHERE
from ramstrans.training.run_folder import REPORT_FILE, RUN_MARK, read_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

PROGRAM = (sys.executable, "-m", "ramstrans")
"""What runs are made by."""

ATTEMPT = "$ "
"""What the line of a log begins with that names the command of an attempt."""

POLL = 0.2
"""Seconds between two looks at the processes."""

MAY_DIFFER = (*(f"data.{name}" for name in WHERE), "device")
"""Options of a plan that a run is resumed with."""


@dataclass(frozen=True)
class Folders:
    """Where things are in the output of a comparison."""

    output: Path

    def run(self, run: Run) -> Path:
        """The folder of a run, or of what judges the regions of one."""
        return self.output / ("regions" if run.judges_regions else "runs") / run.name

    def log(self, run: Run) -> Path:
        """What a run printed."""
        return self.output / "logs" / f"{run.name}.log"

    def claim(self, run: Run) -> Path:
        """The file whose lock says that somebody trains a run."""
        return self.output / "logs" / f"{run.name}.lock"

    def is_done(self, run: Run) -> bool:
        """Whether a run has its report, which is written last."""
        return bool(read_json(self.run(run) / REPORT_FILE))

    def can_start(self, run: Run) -> bool:
        """Whether what a run evaluates is there; one that is trained can always start."""
        return run.of is None or self.is_done(run.of)


@dataclass
class Going:
    """A run that is being trained here."""

    run: Run
    process: "subprocess.Popen[bytes]"
    slot: int
    began: float


def train_command(run: Run, folder: Path) -> list[str]:
    """The arguments of `ramstrans` that begin a run, or go on with it if its folder has begun."""
    if (folder / OPTIONS_FILE).is_file():
        where = [as_word(name, value) for name, value in run.options.items() if name in MAY_DIFFER]
        return ["train", "--resume", str(folder), *where]
    overwrite = ["--overwrite=true"] if (folder / RUN_MARK).is_file() else []  # stopped between two files
    return ["train", *run.words, f"--output={folder}", *overwrite]


def evaluate_command(run: Run, trained: Path, folder: Path) -> list[str]:
    """The arguments of `ramstrans` that evaluate a trained run in another way.

    What a stopped evaluation has left in the folder is removed; a trained run never is.
    """
    assert run.of is not None
    if folder.is_dir() and not any(
        (folder / name).exists() for name in (OPTIONS_FILE, RUN_MARK, REPORT_FILE)
    ):
        shutil.rmtree(folder)
    device = [as_word("device", run.of.options["device"])] if "device" in run.of.options else []
    return ["evaluate", str(trained), *run.words, *device, f"--output={folder}"]


def claim(path: Path) -> IO[bytes] | None:
    """Lock a file; None if another process holds it. The lock lasts until all who inherit it have closed it.

    Raises:
        UsageError: The system has no such locks.
    """
    if fcntl is None:
        raise UsageError("compare needs locks that processes inherit, which Windows lacks; use WSL")
    stream = path.open("ab")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    return stream


class Trainer:
    """Trains the runs that are left, several at a time.

    Args:
        folders: Where the runs and logs go.
        jobs: Most runs at a time.
        gpus: Names of the GPUs that this process sees, which the jobs share out.
        go_on: How to go on after a stop.

    Attributes:
        errors: What went wrong, by the name of the run.
    """

    def __init__(self, folders: Folders, jobs: int, *, gpus: Sequence[str] = (), go_on: str = "") -> None:
        self.folders, self.jobs, self.gpus, self.go_on = folders, jobs, gpus, go_on
        self.going: list[Going] = []
        self.errors: dict[str, str] = {}

    def train(self, runs: Sequence[Run]) -> None:
        """Train what is not done and not being trained by another process.

        Raises:
            KeyboardInterrupt: A signal came; the runs have saved and ended.
        """
        waiting = [run for run in runs if not self.folders.is_done(run)]
        logger.info(
            "%s, %d done, %d to train", counted(len(runs), "run"), len(runs) - len(waiting), len(waiting)
        )
        if not self.jobs or not waiting:
            return
        make_folder(self.folders.output / "logs")
        try:
            while waiting or self.going:
                waiting = self._start_some(waiting)
                if not self.going:
                    break
                time.sleep(POLL)
                check_interrupted()
                self._collect()
        except KeyboardInterrupt as stop:
            saved = self._stop()
            stop.add_note(f"{counted(saved, 'run')} ended and can go on: {self.go_on}")
            raise
        except BaseException:
            self._stop()
            raise
        for run in waiting:
            if self.folders.can_start(run):
                logger.warning(
                    "%s is being trained by another process; start again when it has ended", run.name
                )
            elif run.of in waiting:
                logger.warning("%s waits for %s, of another process", run.name, run.of.name)
            elif run.of is not None:
                self.errors[run.name] = f"{run.of.name}, which it evaluates, has not finished"

    def _start_some(self, waiting: Sequence[Run]) -> list[Run]:
        """Start runs while there is room; returns those that are left."""
        left = []
        for run in waiting:
            if (
                len(self.going) >= self.jobs
                or not self.folders.can_start(run)
                or (lock := claim(self.folders.claim(run))) is None
            ):
                left.append(run)
            else:
                with lock:  # its process has it too, and holds on to it
                    if not self.folders.is_done(run):
                        self.going.append(self._start(run, lock))
        return left

    def _start(self, run: Run, lock: IO[bytes]) -> Going:
        slot = min(set(range(self.jobs)) - {going.slot for going in self.going})
        folder = self.folders.run(run)
        if run.of is None:
            command = train_command(run, folder)
        else:
            command = evaluate_command(run, self.folders.run(run.of), folder)
        log = self.folders.log(run)
        with log.open("ab") as stream:
            stream.write(
                f"{ATTEMPT}{shlex.join(['ramstrans', *command])}\n".encode(errors="backslashreplace")
            )
            stream.flush()
            process = subprocess.Popen(
                [*PROGRAM, *command],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment(os.environ, run, slot, self.jobs, self.gpus),
                pass_fds=[lock.fileno()],
                process_group=0,  # Ctrl-C comes to this process, which passes it on once
            )
        verb = "goes on" if command[1] == "--resume" else "begins"
        logger.info("%s %s; its log: %s", run.name, verb, log)
        return Going(run, process, slot, time.monotonic())

    def _collect(self) -> None:
        """Take leave of the runs that have ended."""
        for going in [going for going in self.going if going.process.poll() is not None]:
            self.going.remove(going)
            run, took = going.run, format_duration(time.monotonic() - going.began)
            if going.process.returncode == 0 and self.folders.is_done(run):
                report = read_json(self.folders.run(run) / REPORT_FILE)
                answers = report.get("early_exit") or report["fused"]
                logger.info("%s done in %s: top-1 %.1f %%", run.name, took, answers["top1"])
            else:
                self.errors[run.name] = last_error(self.folders.log(run), going.process.returncode)
                logger.warning("%s failed after %s: %s", run.name, took, self.errors[run.name])

    def _stop(self) -> int:
        """Let all processes save and end; a second signal kills them. Returns how many there were."""
        count = len(self.going)
        if count:
            logger.info("stopping %s; they save first", counted(count, "run"))
        try:
            for going in self.going:
                going.process.terminate()
            for going in self.going:
                going.process.wait()
        except KeyboardInterrupt:
            for going in self.going:
                with suppress(ProcessLookupError):
                    os.killpg(going.process.pid, signal.SIGKILL)
            for going in self.going:
                going.process.wait()
        return count


def last_error(log: Path, code: int) -> str:
    """The line that says why a run ended, from the end of its log: of the last attempt alone."""
    if code < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f"killed by {names.get(-code, f'signal {-code}')}"
    lines: list[str] = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        lines = [] if line.startswith(ATTEMPT) else [*lines[-20:], *filter(None, [line.strip()])]
    own = [line for line in lines[-5:] if line.startswith("ramstrans: ")]
    return (own or lines or [f"exit code {code}"])[-1].removeprefix("ramstrans: ")


def environment(
    outer: Mapping[str, str], run: Run, slot: int, jobs: int, gpus: Sequence[str]
) -> dict[str, str]:
    """The environment of a run's process: its share of the cores, and a GPU where there are several.

    What is set already stays: OMP_NUM_THREADS, and the GPU of a plan's `device`.
    """
    inner = dict(outer)
    if jobs > 1:
        inner.setdefault("OMP_NUM_THREADS", str(max(num_cores() // jobs, 1)))
    if len(gpus) > 1 and jobs > 1 and "device" not in (run.of or run).options:
        inner["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return inner


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process sees, as CUDA_VISIBLE_DEVICES has them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(index) for index in range(torch.cuda.device_count())]

"""Checkpoints of a run: folders that are whole or not there, with a checksum of every file.

    RUN/checkpoints/
        step-00000141/
            checkpoint.json           where the run stands; bytes and SHA-256 of every other file
            weights.safetensors       the weights that would be chosen, if this is the best epoch so far
            model.safetensors ...     what Accelerate saves: weights, optimiser, schedule, generators

A folder is written under another name, synced to the disk, and renamed; one that a crash has left half
written is never taken for a checkpoint.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from ramstrans.distributed import agree, from_first_process
from ramstrans.errors import OutputError, TrainingError

MANIFEST = "checkpoint.json"
WEIGHTS = "weights.safetensors"
FORMAT_VERSION = 2
"""2: without `num_retries` in the state, and for a model whose weights have other names."""

logger = logging.getLogger(__name__)


@dataclass
class RunState:
    """Where a run stands between two steps: what a checkpoint holds beside weights, optimiser and generators.

    Attributes:
        step: Optimiser steps taken, skipped ones included.
        seconds: Wall-clock time of the training so far, evaluations included.
        num_skipped: Steps whose loss or gradient was not finite.
        skipped_in_a_row: The latest of them, without a good step between.
        best_step: Step after which the best evaluation came; 0 before the first.
        best_epoch: Its epoch, from 1.
        best_score: Its fused top-1 on the validation part, percent; -1 before the first.
        log_bytes: Length of metrics.jsonl.
        num_processes: That trained.
        data: Fingerprint of the data set.
    """

    step: int = 0
    seconds: float = 0.0
    num_skipped: int = 0
    skipped_in_a_row: int = 0
    best_step: int = 0
    best_epoch: int = 0
    best_score: float = -1.0
    log_bytes: int = 0
    num_processes: int = 1
    data: str = ""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: RUN/checkpoints; made at the first one.
        keep: How many of the newest are kept, beside the best epoch's.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def path(self, step: int) -> Path:
        """The folder of the checkpoint after that many steps."""
        return self.folder / f"step-{step:08}"

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, damaged ones included, newest first."""
        folders = self.folder.glob("step-*") if self.folder.is_dir() else ()
        return sorted((int(folder.name.removeprefix("step-")) for folder in folders), reverse=True)

    def save(self, accelerator: Accelerator, state: RunState, chosen: dict[str, Tensor] | None) -> None:
        """Write a checkpoint; every process calls this together.

        Args:
            accelerator: Knows what was prepared and registered.
            state: Where the run stands.
            chosen: Weights to be chosen if this is the best epoch so far, on the CPU; else None.

        Raises:
            OutputError: It cannot be written, say because the disk is full; what is there stays.
        """
        target = self.path(state.step)
        draft = self.folder / f".{target.name}.tmp"
        agree(lambda: self._begin(draft) if accelerator.is_main_process else None)
        agree(lambda: self._write(draft, accelerator, chosen))
        agree(lambda: self._finish(draft, state) if accelerator.is_main_process else None)

    def _begin(self, draft: Path) -> None:
        try:
            for leftover in self.folder.glob(".step-*.tmp"):
                shutil.rmtree(leftover)
            draft.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"checkpoints cannot be written: {error}; give another --output") from error

    def _write(self, draft: Path, accelerator: Accelerator, chosen: dict[str, Tensor] | None) -> None:
        try:
            accelerator.save_state(str(draft))
            if chosen is not None and accelerator.is_main_process:
                save_file(chosen, draft / WEIGHTS, metadata={"format": "pt"})
        except (OSError, RuntimeError, SafetensorError, CheckpointException) as error:  # each has its own
            free = shutil.disk_usage(self.folder).free
            shutil.rmtree(draft, ignore_errors=True)
            raise self._unwritable(draft, f"{reason_of(error)} ({free / 2**20:.0f} MiB are free)") from error

    def _finish(self, draft: Path, state: RunState) -> None:
        target = self.path(state.step)
        try:
            files = {name: describe(draft / name) for name in sorted(files_below(draft))}
            manifest = {
                "format_version": FORMAT_VERSION,
                "state": dataclasses.asdict(state),
                "files": files,
            }
            (draft / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            for name in (MANIFEST, *files):
                sync(draft / name)
            for folder in sorted({(draft / name).parent for name in (MANIFEST, *files)}):
                sync(folder)
            if target.exists():  # written before the run was taken up again from an earlier one
                shutil.rmtree(target)
            draft.rename(target)
            sync(self.folder)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise self._unwritable(draft, error.strerror or str(error)) from error
        self._prune(state)

    def _unwritable(self, draft: Path, reason: str) -> OutputError:
        whole = self.steps()
        last = f"that of step {whole[0]} is untouched" if whole else "there is none before it"
        return OutputError(
            f"the checkpoint {draft.name[1:-4]} cannot be written to {self.folder}: {reason}; {last}: make "
            f"room and go on with `ramstrans train --resume {self.folder.parent}`"
        )

    def _prune(self, state: RunState) -> None:
        """Remove all but the newest checkpoints and the best one; later steps are of another past."""
        before = [step for step in self.steps() if step <= state.step]
        kept = {*before[: self.keep], state.best_step}
        for step in self.steps():
            if step not in kept:
                shutil.rmtree(self.path(step))

    def newest(self) -> RunState | None:
        """Where the run stood at the newest checkpoint that is whole, and whose best epoch's is.

        Damaged ones are named and passed over. Every process calls this together.

        Raises:
            TrainingError: There are checkpoints, but no whole one.
        """
        state = from_first_process(self._newest)
        if state is None and self.steps():
            raise TrainingError(
                f"no checkpoint in {self.folder} is whole; remove that folder to begin again from the start"
            )
        return state

    def _newest(self) -> RunState | None:
        for step in self.steps():
            try:
                state = read_whole(self.path(step))
                if state.best_step not in (0, step):
                    read_whole(self.path(state.best_step))
            except TrainingError as error:
                logger.warning("checkpoint %s is not used: %s", self.path(step), error)
            else:
                return state
        return None

    def load(self, accelerator: Accelerator, state: RunState) -> dict[str, Tensor] | None:
        """Bring everything prepared and registered back to a checkpoint; its best weights, if it has any."""
        accelerator.load_state(str(self.path(state.step)))
        return load_file(self.path(state.best_step) / WEIGHTS) if state.best_step else None


def reason_of(error: BaseException) -> str:
    """What an error says; of one about several processes, what the first of theirs says.

    >>> reason_of(CheckpointException("write", {1: (OSError("full"), None)}))
    'full'
    """
    return str(next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error)


def read_whole(folder: Path) -> RunState:
    """The state in a checkpoint, every file of which is as it was written.

    Raises:
        TrainingError: One is missing, cut short or changed, or the checkpoint is of another version.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version = manifest["format_version"]
        if version != FORMAT_VERSION:
            raise TrainingError(
                f"format_version {version} is of another ramstrans; take the one that wrote it"
            )
        state, files = RunState(**manifest["state"]), dict(manifest["files"])
    except TrainingError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{MANIFEST} cannot be read ({error})") from error
    for name, expected in files.items():
        try:
            found = describe(folder / name)
        except OSError as error:
            raise TrainingError(f"{name} cannot be read ({error.strerror})") from error
        if found != expected:
            raise TrainingError(f"{name} is damaged: {found['bytes']} bytes, of {expected['bytes']} written")
    return state


def describe(path: Path) -> dict[str, int | str]:
    """Bytes and SHA-256 of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def files_below(folder: Path) -> Iterator[str]:
    """Every file in a folder, as a path relative to it."""
    return (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Checkpoints of a run: folders that appear whole or not at all, with a checksum of every file.

    RUN/checkpoints/
        step-00000141/
            checkpoint.json           state of the run; bytes and SHA-256 of every other file
            weights.safetensors       the weights to end with, if this is the best epoch so far
            model.safetensors ...     what Accelerate saves: weights, optimiser, schedule, generators

A folder is written under another name, synced to the disk, and renamed, so a crash leaves no half-written
checkpoint.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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
"""Version 2 dropped `num_retries` from the state, and the weights have other names."""

logger = logging.getLogger(__name__)


@dataclass
class RunState:
    """The state of a run between two steps, besides weights, optimiser and random generators.

    Attributes:
        step: Optimiser steps taken, skipped ones included.
        seconds: Wall-clock time of the training so far, evaluations included.
        num_skipped: Steps whose loss or gradient was not finite.
        skipped_in_a_row: The latest consecutive ones.
        best_step: Step of the best evaluation; 0 before the first.
        best_epoch: Its epoch, from 1.
        best_score: Its fused top-1 on the validation split, in percent; -1 before the first.
        best_loss: Its cross-entropy of the fused probabilities there.
        num_not_better: Evaluations since the last one that was better than all before.
        epoch_loss: Sum of the loss over the images of the current epoch so far.
        epoch_images: Their number; images of skipped steps do not count.
        log_bytes: Length of metrics.jsonl.
        total_steps: Steps of the whole run; 0 in checkpoints of before.
        num_processes: Number of processes that train.
        data: Fingerprint of the data set.
    """

    step: int = 0
    seconds: float = 0.0
    num_skipped: int = 0
    skipped_in_a_row: int = 0
    best_step: int = 0
    best_epoch: int = 0
    best_score: float = -1.0
    best_loss: float = 0.0
    num_not_better: int = 0
    epoch_loss: float = 0.0
    epoch_images: int = 0
    log_bytes: int = 0
    total_steps: int = 0
    num_processes: int = 1
    data: str = ""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: RUN/checkpoints; created with the first one.
        keep: Number of newest checkpoints to keep, besides that of the best epoch so far of each of them.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def path(self, step: int) -> Path:
        """The folder of the checkpoint after that many steps."""
        return self.folder / f"step-{step:08}"

    def steps(self) -> list[int]:
        """Steps of the existing checkpoints, damaged ones included, newest first."""
        folders = self.folder.glob("step-*") if self.folder.is_dir() else ()
        numbers = (folder.name.removeprefix("step-") for folder in folders)
        return sorted((int(number) for number in numbers if number.isdecimal()), reverse=True)

    def save(self, accelerator: Accelerator, state: RunState, chosen: dict[str, Tensor] | None) -> None:
        """Write a checkpoint; every process calls this together.

        Args:
            accelerator: Holds what was prepared and registered.
            state: State of the run.
            chosen: The weights to save, on the CPU, if this is the best epoch so far; else None.

        Raises:
            OutputError: It cannot be written, e.g. because the disk is full; earlier checkpoints stay.
        """
        draft, is_first = self.folder / f".{self.path(state.step).name}.tmp", accelerator.is_main_process
        agree(lambda: self._begin(draft) if is_first else None)
        agree(lambda: self._write(draft, accelerator, chosen))
        agree(lambda: self._finish(draft, state) if is_first else None)

    def _begin(self, draft: Path) -> None:
        with self._all_or_nothing(draft):
            for leftover in self.folder.glob(".step-*.tmp"):
                shutil.rmtree(leftover)
            draft.mkdir(parents=True)

    def _write(self, draft: Path, accelerator: Accelerator, chosen: dict[str, Tensor] | None) -> None:
        with self._all_or_nothing(draft):
            accelerator.save_state(str(draft))
            if chosen is not None and accelerator.is_main_process:
                save_file(chosen, draft / WEIGHTS, metadata={"format": "pt"})

    def _finish(self, draft: Path, state: RunState) -> None:
        target = self.path(state.step)
        with self._all_or_nothing(draft):
            paths = sorted(path for path in draft.rglob("*") if path.is_file())
            files = {str(path.relative_to(draft)): describe(path) for path in paths}
            manifest = {"format_version": FORMAT_VERSION, "state": dataclasses.asdict(state), "files": files}
            (draft / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            for path in (*paths, draft / MANIFEST, draft, *sorted({path.parent for path in paths})):
                sync(path)
            if target.exists():  # written before the run was resumed from an earlier one
                shutil.rmtree(target)
            draft.rename(target)
            sync(self.folder)
        self._prune(state)

    @contextmanager
    def _all_or_nothing(self, draft: Path) -> Iterator[None]:
        """Remove the draft on an error, and name the checkpoint that remains."""
        try:
            yield
        except (OSError, RuntimeError, SafetensorError, CheckpointException) as error:  # each library's own
            shutil.rmtree(draft, ignore_errors=True)
            whole = self.steps()
            last = f"that of step {whole[0]} is untouched" if whole else "there is none before it"
            raise OutputError(
                f"the checkpoint {draft.name[1:-4]} cannot be written to {self.folder}: {reason_of(error)}; "
                f"{last}: free some space and resume by `ramstrans train --resume {self.folder.parent}`"
            ) from error

    def _prune(self, state: RunState) -> None:
        """Remove all but the newest checkpoints and their best ones, and later steps, of before a resume."""
        newest = [step for step in self.steps() if step <= state.step][: self.keep]
        kept = {*newest, *map(self._best_step, newest)}
        for step in self.steps():
            if step not in kept:
                shutil.rmtree(self.path(step))

    def _best_step(self, step: int) -> int:
        """The step whose weights a checkpoint needs, beside its own; its own if that is damaged."""
        try:
            manifest = json.loads((self.path(step) / MANIFEST).read_text(encoding="utf-8"))
            return int(manifest["state"]["best_step"])
        except (OSError, ValueError, KeyError, TypeError):
            return step

    def newest(self) -> RunState | None:
        """The state in the newest checkpoint that is whole and whose best epoch's checkpoint is whole.

        Warns about damaged ones and skips them. Every process calls this together.

        Raises:
            TrainingError: There are checkpoints, but no whole one.
        """
        state = from_first_process(self._newest)
        if state is None and self.steps():
            raise TrainingError(f"no checkpoint in {self.folder} is whole; remove that folder to start again")
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
        """Load a checkpoint into all that was prepared and registered; return its best weights, if any."""
        accelerator.load_state(str(self.path(state.step)))
        return load_file(self.path(state.best_step) / WEIGHTS) if state.best_step else None


def reason_of(error: BaseException) -> str:
    """The message of an error; for one about several processes, that of the first process.

    >>> reason_of(CheckpointException("write", {1: (OSError("full"), None)}))
    'full'
    """
    return str(next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error)


def read_whole(folder: Path) -> RunState:
    """The state in a checkpoint, after checking that every file is as it was written.

    Raises:
        TrainingError: One is missing, cut short or changed, or the checkpoint is of another version.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version, files = manifest["format_version"], dict(manifest["files"])
        state = RunState(**manifest["state"]) if version == FORMAT_VERSION else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{MANIFEST} cannot be read ({error})") from error
    if state is None:
        raise TrainingError(f"format_version {version} is of another ramstrans; use the one that wrote it")
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


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

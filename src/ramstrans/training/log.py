"""The log of a run: metrics.jsonl, the trackers, and one line per epoch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ramstrans.console import format_duration
from ramstrans.plain import to_plain
from ramstrans.training.trackers import log_numbers
from ramstrans.training.validation import describe


class MetricsLog:
    """Appends rows to metrics.jsonl and passes their numbers to the trackers, in the first process only.

    Args:
        path: The file.
        accelerator: Holds the trackers.
    """

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        self.path = path
        self.accelerator = accelerator

    def write(self, row: dict[str, Any], step: int) -> None:
        """Write one row, with null for what is not finite; the file is closed when this returns."""
        if not self.accelerator.is_main_process:
            return
        row = to_plain(row, "row")
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        log_numbers(self.accelerator, numbers_of(row), step)

    def num_bytes(self) -> int:
        """Length of the file; 0 if there is none."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, num_bytes: int) -> None:
        """Remove the rows after a checkpoint; a resumed run writes them again."""
        if self.accelerator.is_main_process and self.num_bytes() > num_bytes:
            with self.path.open("rb+") as file:
                file.truncate(num_bytes)


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row of metrics.jsonl by the names that trackers show; scales count from 1.

    >>> numbers_of({"kind": "validation", "epoch": 2, "top1_scales": [50.0, 75.0], "is_best": True})
    {'validation/epoch': 2, 'validation/top1_scale_1': 50.0, 'validation/top1_scale_2': 75.0}
    """
    numbers: dict[str, float] = {}
    for key, value in row.items():
        if key.endswith("_scales"):
            values = {f"{key.removesuffix('s')}_{scale}": part for scale, part in enumerate(value, start=1)}
        else:
            values = {key: value} if key != "step" else {}
        numbers |= {
            f"{row['kind']}/{name}": number
            for name, number in values.items()
            if isinstance(number, int | float) and not isinstance(number, bool)
        }
    return numbers


def epoch_line(
    epoch: int,
    num_epochs: int,
    loss: float,
    row: Mapping[str, Any] | None,
    lr: float,
    images_per_second: float,
    seconds_left: float,
) -> str:
    """The line that an epoch gets in the terminal and in logs; its format is in docs/training.md.

    Args:
        epoch: From 1.
        num_epochs: Of the run, `training.patience` aside.
        loss: Mean training loss over the epoch's images.
        row: The epoch's row in metrics.jsonl; None if it was not validated.
        lr: Learning rate of its last step.
        images_per_second: Training only, without validation.
        seconds_left: Expected time to the end of the last epoch, validation included.

    >>> epoch_line(3, 12, 1.25, None, 2e-4, 97.3, 761)
    'epoch  3/12: loss 1.250, lr 2.0e-04, 97.3 images/s, 12 min 41 s left'
    """
    parts = [f"epoch {epoch:{len(str(num_epochs))}}/{num_epochs}: loss {loss:.3f}"]
    if row is not None:
        parts.append(describe(row))
    parts += [f"lr {lr:.1e}", f"{images_per_second:.1f} images/s"]
    if epoch < num_epochs:
        parts.append(f"{format_duration(seconds_left)} left")
    if row is not None and row["is_best"]:
        parts.append("best so far")
    return ", ".join(parts)

"""What a run writes down while it goes."""

import json
from pathlib import Path
from typing import Any

from accelerate import Accelerator


class MetricsLog:
    """Appends rows to metrics.jsonl and hands their numbers to the trackers; in the first process only.

    Args:
        path: The file.
        accelerator: Has the trackers.
    """

    def __init__(self, path: Path, accelerator: Accelerator) -> None:
        self.path = path
        self.accelerator = accelerator

    def write(self, row: dict[str, Any], step: int) -> None:
        """Write one row; each is whole on disk when this returns."""
        if not self.accelerator.is_main_process:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        numbers = {f"{row['kind']}/{key}": value for key, value in row.items() if isinstance(value, float)}
        self.accelerator.log(numbers, step=step)

    def num_bytes(self) -> int:
        """Length of the file."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, num_bytes: int) -> None:
        """Forget the rows after a checkpoint, which will be written again."""
        if self.accelerator.is_main_process and self.num_bytes() > num_bytes:
            with self.path.open("rb+") as file:
                file.truncate(num_bytes)

"""The log of a run: metrics.jsonl and the trackers."""

import json
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ramstrans.plain import to_plain


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
        numbers = {f"{row['kind']}/{key}": value for key, value in row.items() if isinstance(value, float)}
        self.accelerator.log(numbers, step=step)

    def num_bytes(self) -> int:
        """Length of the file; 0 if there is none."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, num_bytes: int) -> None:
        """Remove the rows after a checkpoint; a resumed run writes them again."""
        if self.accelerator.is_main_process and self.num_bytes() > num_bytes:
            with self.path.open("rb+") as file:
                file.truncate(num_bytes)

"""Every error that ramstrans raises on purpose.

    RamsTransError (ValueError)        exit code 1
    ├── UsageError                     exit code 2   an option or argument that is not allowed
    │   ├── ConfigError                              a field of a config, or a config file
    │   └── OutputError                              an output path that exists or cannot be written
    ├── DataError                      exit code 3   a data set that cannot be used as it is
    │   └── UnreadableImageError                     one image file that cannot be decoded
    ├── WeightsError                   exit code 1   weights that are missing or do not fit
    └── TrainingError                  exit code 1   a run that cannot continue
        └── StoppedError               128 + signal  a run that a signal stopped and that can be resumed

A message says what came, what is allowed, and what to do next, in one line.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self


class RamsTransError(ValueError):
    """Base of all errors meant for the user; `exit_code` is what the command line exits with."""

    exit_code = 1


class UsageError(RamsTransError):
    """An option or argument that is not allowed."""

    exit_code = 2


class ConfigError(UsageError):
    """A config field with a value that is not allowed, or a config file that cannot be read."""


class OutputError(UsageError):
    """An output path that exists already or cannot be written."""


class DataError(RamsTransError):
    """A data set that cannot be used as it is."""

    exit_code = 3


class UnreadableImageError(DataError):
    """An image file that cannot be decoded.

    Args:
        path: The file.
        reason: Why, in a few words, e.g. `"empty file"`.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[Self], tuple[Path, str]]:
        """Allow pickling, to leave a loader's worker process."""
        return type(self), (self.path, self.reason)


class WeightsError(RamsTransError):
    """Weights that are missing, damaged, or do not fit the model."""


class TrainingError(RamsTransError):
    """A training run that cannot continue."""


class StoppedError(TrainingError):
    """A training run that a signal has stopped between two steps.

    Args:
        message: What was saved, and how to resume.
        signal_number: Number of the signal, e.g. 15.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number  # the convention of shells

    def __reduce__(self) -> tuple[type[Self], tuple[str, int]]:
        """Allow pickling, to reach another process."""
        return type(self), (str(self), self.signal_number)


def first_few(items: Sequence[str], limit: int = 3) -> str:
    """Join the first few of many phrases, and count the rest.

    >>> first_few(["a", "b", "c"], limit=2)
    'a; b; and 1 more'
    """
    more = [f"and {len(items) - limit} more"] if len(items) > limit else []
    return "; ".join([*items[:limit], *more])

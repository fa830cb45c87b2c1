"""Priors of photographs: which conditions hold, by the table that lists them or by their EXIF data."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ramstrans.calibration.priors import Matched, Priors, Value, read_priors
from ramstrans.data.reading.exif import taken_at, taken_where
from ramstrans.errors import UsageError, first_few

EXIF = ("month", "latitude", "longitude")
"""Conditions that photographs say by themselves, where no table has a column of this name."""

Cells = Mapping[Path, Mapping[str, str]]
"""Of the table that lists the photographs: the cells of each, by column."""

NO_CELLS: Cells = MappingProxyType({})


class ImagePriors:
    """Priors with the values of their conditions for each photograph.

    Args:
        priors: The priors.
        cells: Of the table that lists the photographs, if there is one.

    Raises:
        UsageError: A condition is neither a column of the table nor one of `EXIF`.
    """

    def __init__(self, priors: Priors, cells: Cells = NO_CELLS) -> None:
        self.priors, self._cells = priors, cells
        columns = list(dict.fromkeys(name for each in cells.values() for name in each))
        self._from_exif = [name for name in priors.conditions if name in EXIF and name not in columns]
        if missing := [f"'{name}'" for name in priors.conditions if name not in (*EXIF, *columns)]:
            has = f"the table of the photographs has {first_few(columns, 5)}"
            raise UsageError(
                f"{priors.source} has the condition {first_few(missing)}, and "
                f"{has if cells else 'no table of photographs is read here'}; remove it, or give `ramstrans "
                f"predict` a table with this column (EXIF data have {', '.join(EXIF)})"
            )

    def check_no_conditions(self, who: str) -> None:
        """Raise UsageError if what a photograph gets depends on more than `who` knows of it."""
        if self.priors.conditions:
            raise UsageError(
                f"--priors {self.priors.source} has conditions, of which {who} knows nothing; give a list of "
                "classes, or leave the columns out"
            )

    @property
    def name(self) -> str:
        """Of the file."""
        return Path(self.priors.source).name

    def of(self, path: Path | None) -> Matched:
        """The priors for a photograph; None: it has no file, and so no values."""
        values: dict[str, Value] = dict(self._cells.get(path, {})) if path is not None else {}
        if path is not None and self._from_exif:
            values |= {name: value for name, value in exif_values(path).items() if name in self._from_exif}
        return self.priors.matched(values)

    def fingerprint(self) -> str:
        """A hash of what answers depend on."""
        text = repr((self.priors.cases, sorted(self._cells.items()) if self.priors.conditions else ()))
        return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def read_image_priors(path: Path, class_names: Sequence[str], cells: Cells = NO_CELLS) -> ImagePriors:
    """Read priors for a model's classes.

    Raises:
        RamsTransError: As `read_priors` and `ImagePriors`.
    """
    return ImagePriors(read_priors(path, class_names), cells)


def check_priors(folder: Path | str, *, is_calibrated: bool, multi_label: bool) -> None:
    """Raise UsageError if priors cannot go with a model, or an exported folder of one."""
    if multi_label:
        raise UsageError(
            f"--priors is for classes of which an image has one, and images of {folder} may have several "
            "labels (multi_label); leave --priors out"
        )
    if not is_calibrated:
        raise UsageError(
            f"--priors needs calibrated probabilities, and {folder} is not calibrated; run `ramstrans "
            "calibrate` on its run, and export it again if it was exported"
        )


def exif_values(path: Path) -> dict[str, Value]:
    """The values of `EXIF` for a photograph; None where it does not say."""
    moment, place = taken_at(path), taken_where(path)
    latitude, longitude = place or (None, None)
    month = None if moment is None else float(moment.month)
    return {"month": month, "latitude": latitude, "longitude": longitude}

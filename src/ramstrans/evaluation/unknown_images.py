"""Images of no class of a model: of classes that training left out, and of a folder of anything."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ramstrans.console import Progress, no_progress
from ramstrans.data.audit.duplicates import fingerprint, likeness
from ramstrans.data.audit.files import decode_each, find_unreadable
from ramstrans.data.config import DataConfig
from ramstrans.data.reading.decode import decode_reduced
from ramstrans.data.reading.listing import LeftOut, images_below
from ramstrans.data.records import ImageSet, Record, Split
from ramstrans.errors import DataError, UnreadableImageError, first_few
from ramstrans.plain import counted
from ramstrans.saved.metadata import ModelMetadata

_SIDE = 64  # twice the side at which a fingerprint is computed


class UnknownImages(NamedTuple):
    """Images of no class of the model.

    Attributes:
        name: What they are, for reports.
        records: Their labels have no meaning.
    """

    name: str
    records: tuple[Record, ...]


def unknown_images(
    metadata: ModelMetadata,
    held_out: ImageSet | None,
    split: Split,
    folder: Path | None,
    known: Sequence[Record],
    data: DataConfig,
    progress: Progress = no_progress,
) -> tuple[list[UnknownImages], list[str]]:
    """Images of no class of the model: of classes held out, and of a folder; and a line per unreadable file.

    Args:
        metadata: Of the model.
        held_out: The classes that training left out.
        split: Which of their images.
        folder: Other images.
        known: Images of the model's classes, to find copies of.
        data: How files are read.
        progress: Reports files done.

    Raises:
        DataError: The folder holds known classes.
    """
    found, errors = of_held_out(held_out, split, data, progress)
    kinds = [] if found is None else [found]
    if folder is not None:
        images, more = of_folder(folder, metadata.class_names, known, data, progress)
        kinds, errors = [*kinds, images], errors + more
    return kinds, errors


def of_held_out(
    images: ImageSet | None, split: Split, data: DataConfig, progress: Progress = no_progress
) -> tuple[UnknownImages | None, list[str]]:
    """Images of one split of the classes that training left out; a line per file that cannot be read."""
    records = () if images is None else images.of_split(split)
    if images is None or not records:
        return None, []
    errors = find_unreadable(records, data.max_pixels, progress, data.read_timeout)
    unreadable = {error.path for error in errors}
    readable = tuple(record._replace(label=0) for record in records if record.path not in unreadable)
    name = f"{counted(len(images.class_names), 'class')} held out"
    return UnknownImages(name, readable) if readable else None, [f"left out: {error}" for error in errors]


def of_folder(
    folder: Path,
    class_names: Sequence[str],
    known: Sequence[Record],
    data: DataConfig,
    progress: Progress = no_progress,
) -> tuple[UnknownImages, list[str]]:
    """All images in a folder and below, and one line per file that cannot be read and is left out.

    Args:
        folder: The folder.
        class_names: The model's.
        known: Images of its classes, to find copies of.
        data: How files are read.
        progress: Reports files done.

    Raises:
        DataError: The folder is missing, has no images, or has some of the model's classes: a folder
            with the name of a class, or near-duplicates of known images.
    """
    if not folder.is_dir():
        raise DataError(f"--unknown {folder} is not a folder; give one of images of no class of the model")
    paths = list(images_below(folder, LeftOut()))
    if not paths:
        raise DataError(f"--unknown {folder} has no images; give a folder of images of no class of the model")
    named = {part for path in paths for part in path.relative_to(folder).parts[:-1]} & set(class_names)
    if named:
        names = first_few([f"'{name}'" for name in sorted(named)])
        raise DataError(
            f"--unknown {folder} holds folders of the model's own classes: {names}; give images of none of "
            "them"
        )
    records = tuple(Record(path, 0, "test") for path in paths)
    prints, errors = _fingerprints(records, data, progress)
    readable = tuple(record for record in records if record.path in prints)
    if not readable:
        raise DataError(
            f"none of the {len(records)} files of --unknown {folder} can be read, e.g. {errors[0]}"
        )
    of_known, _ = _fingerprints(known, data, progress)
    if copies := _copies(prints, of_known):
        are = "is a near-duplicate" if len(copies) == 1 else "are near-duplicates"
        raise DataError(
            f"{counted(len(copies), 'image')} of --unknown {folder} {are} of images of the model's classes: "
            f"{first_few([f'{one} of {other}' for one, other in copies])}; remove them"
        )
    return UnknownImages(str(folder), readable), [f"left out: {error}" for error in errors]


def _fingerprints(
    records: Sequence[Record], data: DataConfig, progress: Progress
) -> tuple[dict[Path, np.ndarray], list[UnreadableImageError]]:
    """(64,) of each file that can be read, see `duplicates`, and the errors of the others."""

    def compute(path: Path) -> np.ndarray:
        return fingerprint(decode_reduced(path, (_SIDE, _SIDE), max_pixels=data.max_pixels).image)

    prints: dict[Path, np.ndarray] = {}
    errors = []
    for path, found in decode_each(compute, records, progress, data.read_timeout):
        if isinstance(found, UnreadableImageError):
            errors.append(found)
        else:
            prints[path] = found
    return prints, errors


def _copies(unknown: dict[Path, np.ndarray], known: dict[Path, np.ndarray]) -> list[tuple[Path, Path]]:
    """Each unknown image that is a near-duplicate of a known one, and the first such one."""
    if not known:
        return []
    bank, paths, copies = np.stack(list(known.values())), list(known), []
    for path, of_image in unknown.items():
        _, is_near = likeness(of_image[None], bank)
        if is_near.any():
            copies.append((path, paths[int(is_near[0].argmax())]))
    return copies

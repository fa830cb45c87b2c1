"""Data sets of Hugging Face's `datasets`: saved to disk, as folders of files, or from the hub.

https://huggingface.co/docs/datasets. The library is optional: `pip install datasets`.
"""

import hashlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from ramstrans.data.config import DataConfig
from ramstrans.data.datasets.lists import SPLIT_NAMES, split_of
from ramstrans.data.detect import SAVED_BY_DATASETS
from ramstrans.data.records import SPLITS, ImageSet, Record, Split
from ramstrans.errors import DataError
from ramstrans.files import write_file


def read_hugging_face(
    root: Path,
    path_column: str = DataConfig.path_column,
    label_column: str = DataConfig.label_column,
) -> ImageSet:
    """Read a data set with `datasets`.

    Images stored as files are read from there. Images stored inside the data set are written to a folder
    once, each named by the SHA-256 of its bytes: `<root>.images` beside the data set's or, for one from the
    hub, `hugging_face` in the user's cache folder.

    Args:
        root: A folder written by `save_to_disk`; or any other folder that `datasets.load_dataset` reads,
            e.g. of Parquet files; or, if no such folder exists, a name on the hub, e.g. `ethz/food101`.
        path_column: Column of the images; if there is none of that name, the only column of images.
        label_column: Column of the classes: class labels, or any text or whole numbers.

    Returns:
        Classes in the order of the list of names, or sorted if there is none; records by split (training,
        validation, test), in the order of the rows.

    Raises:
        DataError: The library is not installed or cannot read the data set, or a column, a split or a
            label is missing.
        OutputError: An image cannot be written.
    """
    try:
        library = import_module("datasets")  # which is typed only if it is installed
    except ImportError as error:
        raise DataError("data.name hugging_face needs the library datasets; pip install datasets") from error
    splits = _by_split(_load(library, root), root)
    column = _image_column(library, splits["train"], root, path_column)
    labels = {split: _labels(rows, label_column, f"{root}, {split}") for split, rows in splits.items()}
    listed = getattr(splits["train"].features[label_column], "names", None)
    names = tuple(listed or sorted(set().union(*labels.values())))
    label_of = {name: label for label, name in enumerate(names)}
    if unknown := [name for found in labels.values() for name in found if name not in label_of]:
        raise DataError(
            f"{root}: '{label_column}' is '{unknown[0]}', which is not among the training images'; "
            "save it without"
        )
    if root.is_dir():
        folder = images_beside(root)
    else:
        from ramstrans.data.reading.cache import default_cache_dir  # it imports torch

        folder = default_cache_dir().with_name("hugging_face")
    records: list[Record] = []
    for split, rows in splits.items():
        paths = _paths(library, rows, column, folder, f"{root}, {split}")
        pairs = zip(paths, labels[split], strict=True)
        records += (Record(path, label_of[name], split) for path, name in pairs)
    return ImageSet(names, tuple(records))


def images_beside(root: Path) -> Path:
    """Where images that the tables of a folder hold are unpacked."""
    return root.resolve().parent / f"{root.resolve().name}.images"


def _load(library: Any, root: Path) -> Any:  # noqa: ANN401 - a Dataset or DatasetDict
    try:
        if any((root / marker).is_file() for marker in SAVED_BY_DATASETS):
            return library.load_from_disk(str(root))
        return library.load_dataset(str(root) if root.is_dir() else root.as_posix())
    except (OSError, ValueError, RuntimeError, KeyError, library.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{root} cannot be read by datasets, as a folder or from the hub: {reason}"
        ) from error


def _by_split(loaded: Any, root: Path) -> dict[Split, Any]:  # noqa: ANN401 - Datasets
    """Return the rows of each split; a single table is all training images."""
    named = loaded if isinstance(loaded, dict) else {"train": loaded}
    splits: dict[Split, Any] = {}
    for name, rows in named.items():
        split = split_of(name)
        if split is None:
            raise DataError(
                f"{root} has a split '{name}'; allowed are {', '.join(SPLIT_NAMES)}; save it without"
            )
        if split in splits:
            raise DataError(f"{root} has more than one {split} split; save it with one")
        splits[split] = rows
    if "train" not in splits:
        raise DataError(f"{root} has no split 'train'; it has {', '.join(named) or 'none'}")
    return {split: splits[split] for split in SPLITS if split in splits}


def _image_column(library: Any, rows: Any, root: Path, preferred: str) -> str:  # noqa: ANN401 - a module, a Dataset
    columns = [name for name, feature in rows.features.items() if isinstance(feature, library.Image)]
    if preferred in columns:
        return preferred
    if len(columns) == 1:
        return str(columns[0])
    present = ", ".join(f"'{name}'" for name in columns) or "none"
    raise DataError(f"{root} has columns of images: {present}; choose one by --data.path_column")


def _labels(rows: Any, column: str, source: str) -> list[str]:  # noqa: ANN401 - a Dataset
    """List the class name of each row; `datasets` may write a missing label as -1."""
    if column not in rows.features:
        present = ", ".join(f"'{name}'" for name in rows.features)
        raise DataError(f"{source}: no column '{column}'; it has {present} (choose by --data.label_column)")
    names = getattr(rows.features[column], "names", None)
    labels = []
    for number, value in enumerate(rows.with_format(None)[column], start=1):
        is_missing = value is None or (names is not None and value < 0)
        label = "" if is_missing else str(value).strip() if names is None else str(names[value])
        if not label:
            raise DataError(f"{source}, row {number}: '{column}' is empty; save it without that row")
        labels.append(label)
    return labels


def _paths(library: Any, rows: Any, column: str, folder: Path, source: str) -> Iterator[Path]:  # noqa: ANN401
    """Yield the file of each row's image; write images that are stored inside the data set."""
    undecoded = (
        rows.select_columns([column]).with_format(None).cast_column(column, library.Image(decode=False))
    )
    for number, row in enumerate(undecoded, start=1):
        image = row[column]
        if image is None:
            raise DataError(f"{source}, row {number}: '{column}' is empty; save it without that row")
        content, path = image["bytes"], image["path"]
        if content is not None:
            yield _write(folder, content)
        elif "://" not in path:
            yield Path(path)
        else:
            raise DataError(f"{source}, row {number}: the image is in an archive, {path}; unpack it")


def _write(folder: Path, content: bytes) -> Path:
    name = hashlib.sha256(content).hexdigest()
    path = folder / name[:2] / name
    if not path.is_file():
        write_file(path, content, sync=False)
    return path

"""Data sets of Hugging Face's `datasets`: saved to disk, as folders of files, or from the hub.

https://huggingface.co/docs/datasets. The library is optional: `pip install datasets`.
"""

import hashlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from ramstrans.data.config import DataConfig
from ramstrans.data.datasets.lists import SPLIT_NAMES
from ramstrans.data.reading.cache import default_cache_dir
from ramstrans.data.records import ImageSet, Record, Split
from ramstrans.errors import DataError
from ramstrans.files import write_file

MARKER_FILES = ("dataset_dict.json", "state.json")
"""Files that `save_to_disk` writes: for several splits, or for one."""


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
    library = _library()
    splits = _by_split(_load(library, root), root)
    first = splits[next(iter(splits))]
    column = _image_column(library, first, root, path_column)
    names = _class_names(splits, root, label_column)
    label_of = {name: label for label, name in enumerate(names)}
    records: list[Record] = []
    for split, rows in splits.items():
        paths = _paths(library, rows, column, _cache(root), f"{root}, {split}")
        labels = (label_of[name] for name in _labels(rows, label_column))
        records += (Record(path, label, split) for path, label in zip(paths, labels, strict=True))
    return ImageSet(names, tuple(records))


def _library() -> Any:  # noqa: ANN401 - the module is typed only if it is installed
    try:
        return import_module("datasets")
    except ImportError as error:
        raise DataError("data.name hugging_face needs the library datasets; pip install datasets") from error


def _load(library: Any, root: Path) -> Any:  # noqa: ANN401 - a Dataset or DatasetDict
    try:
        if any((root / marker).is_file() for marker in MARKER_FILES):
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
        if name not in SPLIT_NAMES:
            raise DataError(
                f"{root} has a split '{name}'; allowed are {', '.join(SPLIT_NAMES)}; save it without"
            )
        if SPLIT_NAMES[name] in splits:
            raise DataError(f"{root} has more than one {SPLIT_NAMES[name]} split; save it with one")
        splits[SPLIT_NAMES[name]] = rows
    if "train" not in splits:
        raise DataError(f"{root} has no split 'train'; it has {', '.join(named) or 'none'}")
    return {split: splits[split] for split in ("train", "val", "test") if split in splits}


def _image_column(library: Any, rows: Any, root: Path, preferred: str) -> str:  # noqa: ANN401 - a module, a Dataset
    columns = [name for name, feature in rows.features.items() if isinstance(feature, library.Image)]
    if preferred in columns:
        return preferred
    if len(columns) == 1:
        return str(columns[0])
    present = ", ".join(f"'{name}'" for name in columns) or "none"
    raise DataError(f"{root} has columns of images: {present}; choose one by --data.path_column")


def _class_names(splits: dict[Split, Any], root: Path, column: str) -> tuple[str, ...]:
    """Return the class names of the training images' column, or all labels that occur if it has none."""
    for split, rows in splits.items():
        if column not in rows.features:
            present = ", ".join(f"'{name}'" for name in rows.features)
            raise DataError(
                f"{root}, {split}: no column '{column}'; it has {present} (choose by --data.label_column)"
            )
    found = {split: list(_labels(rows, column)) for split, rows in splits.items()}
    listed = getattr(splits["train"].features[column], "names", None)
    names = tuple(listed or sorted({name for labels in found.values() for name in labels}))
    for split, labels in found.items():
        wrong = next((index for index, name in enumerate(labels) if not name or name not in names), None)
        if wrong is not None:
            what = f"'{labels[wrong]}', which is not among the training images'" if labels[wrong] else "empty"
            raise DataError(f"{root}, {split}, row {wrong + 1}: '{column}' is {what}; save it without")
    return names


def _labels(rows: Any, column: str) -> Iterator[str]:  # noqa: ANN401 - a Dataset
    """Yield the class name of each row; empty if it has none, which `datasets` may write as -1."""
    names = getattr(rows.features[column], "names", None)
    for value in rows.with_format(None)[column]:
        if value is None or (names is not None and value < 0):
            yield ""
        else:
            yield names[value] if names is not None else str(value).strip()


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


def _cache(root: Path) -> Path:
    if root.is_dir():
        return root.resolve().parent / f"{root.resolve().name}.images"
    return default_cache_dir().with_name("hugging_face")

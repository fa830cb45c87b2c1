"""Tars in WebDataset's conventions, without an index: the files of a sample differ only in their suffixes.

https://github.com/webdataset/webdataset
"""

import json
import re
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from ramstrans.data.datasets.lists import read_classes, split_words
from ramstrans.data.reading.formats import has_image_suffix, image_suffixes
from ramstrans.data.reading.listing import LeftOut
from ramstrans.data.reading.retry import open_retrying
from ramstrans.data.reading.tars import Entry, entries_of
from ramstrans.data.records import ImageSet, Record, Split
from ramstrans.errors import DataError

CLASSES_FILE = "classes.txt"

_SAMPLE_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
_META_NAME = re.compile(r"__[^/]*__($|/)")


class _Sample(NamedTuple):
    """One labelled image; the label is a number or a class name."""

    path: Path
    split: Split
    label: int | str


def read_tar_samples(root: Path) -> ImageSet:
    """Read all tars in a folder and below whose samples are an image and its label.

    The label is the field `label` of a `.json` (a number or a name), else its `class_name`, else the content
    of a `.cls`. Numbers index the lines of `root/classes.txt` from 0, or are names themselves if there is no
    such file. The split is the word `train`, `val` (also `valid`, `validation`) or `test` in the tar's name
    or folder; if no tar has such a word, all images are training images. The files of a sample must be
    adjacent. One warning counts what is not used: samples without an image, and files beside the tars. Other
    suffixes of a sample are ignored; so are boxes, which have no common convention.

    Every start reads all tars, which is slow on network file systems. `ramstrans data shard` converts them
    to shards with an index.

    Args:
        root: The folder of the tars.

    Returns:
        Records by tar, in the order of its samples.

    Raises:
        DataError: A tar or a member is missing or wrong; the message names it.
    """
    left_out = LeftOut()
    splits = _splits(root, left_out)
    samples = [sample for tar, split in splits.items() for sample in _samples(tar, split, left_out)]
    left_out.log(root)
    if (file := root / CLASSES_FILE).is_file():
        label_of = read_classes(file)
    else:
        names = _names_of({sample.label for sample in samples}, root)
        label_of = {name: label for label, name in enumerate(names)}
        samples = [sample._replace(label=str(sample.label)) for sample in samples]
    return ImageSet(
        tuple(label_of),
        tuple(Record(path, _label(label, path, label_of), split) for path, split, label in samples),
    )


def _splits(root: Path, left_out: LeftOut) -> dict[Path, Split]:
    """Find the tars and the split of each, in order."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the one that holds the tars (--data.root)")
    found = {}
    for file in sorted(root.rglob("[!.]*")):
        if file.suffix == ".tar" and file.is_file():
            found[file] = split_words(file.relative_to(root).as_posix())
        elif file.is_file() and file != root / CLASSES_FILE:
            left_out.add_file(file.name)
    if not found:
        raise DataError(
            f"{root} has neither shards.json nor tars; write shards by `ramstrans data shard ROOT OUT`"
        )
    if not any(found.values()):
        return dict.fromkeys(found, "train")
    for tar, splits in found.items():
        if len(splits) != 1:
            raise DataError(
                f"{tar} names {len(splits)} splits; name exactly one of train, val and test in each tar's "
                "name, or none in any"
            )
    return {tar: splits.pop() for tar, splits in found.items()}


def _samples(tar: Path, split: Split, left_out: LeftOut) -> Iterator[_Sample]:
    """The labelled images of a tar."""
    with open_retrying(tar) as stream:
        for key, files in _grouped(tar):
            images = [entry for suffix, entry in files.items() if f".{suffix}" in image_suffixes()]
            if len(images) > 1:
                names = " and ".join(entry.name for entry in images)
                raise _error(tar, key, f"it has {names}; keep one image per sample")
            if not images:
                _check_dots(tar, key, files)
                left_out["sample without an image"] += 1
                continue
            labels = {}
            for suffix in files.keys() & {"json", "cls"}:
                stream.seek(files[suffix].offset)
                labels[suffix] = stream.read(files[suffix].size)
            yield _Sample(tar / images[0].name, split, _label_in(labels, tar, key))


def _check_dots(tar: Path, key: str, files: dict[str, Entry]) -> None:
    """Refuse a sample without an image whose files look like one, such as `IMG.2034.jpg`."""
    for suffix, entry in files.items():
        if has_image_suffix(suffix):
            raise _error(
                tar,
                key,
                f"{entry.name} is not an image of it: in WebDataset a sample's name ends at the first dot; "
                "write the tar with other names, or unpack it and use --data.name folder or table",
            )


def _grouped(tar: Path) -> Iterator[tuple[str, dict[str, Entry]]]:
    """The key of each sample, and its files by suffix: everything after the first dot."""
    parts = ((_SAMPLE_NAME.fullmatch(entry.name), entry) for entry in entries_of(tar))
    named = ((match[1], match[2].lower(), entry) for match, entry in parts if match)
    seen: set[str] = set()
    for key, group in groupby(named, key=itemgetter(0)):
        if _META_NAME.match(key):
            continue
        if key in seen:
            raise _error(tar, key, "its files are not adjacent; write them one after another")
        seen.add(key)
        files: dict[str, Entry] = {}
        for _, suffix, entry in group:
            if suffix in files:
                raise _error(tar, key, f"it has two files .{suffix}; keep one")
            files[suffix] = entry
        yield key, files


def _label_in(labels: dict[str, bytes], tar: Path, key: str) -> int | str:
    """Read the label from a sample's `.json`, else from its `.cls`."""
    try:
        fields = json.loads(labels.get("json", b"{}"))
        for name in ("label", "class_name"):
            if isinstance(fields, dict) and name in fields:
                if type(fields[name]) not in (int, str):
                    raise _error(tar, key, f"'{name}' is {fields[name]!r}; give a number or a name")
                if isinstance(fields[name], int) and fields[name] < 0:
                    raise _error(tar, key, f"its label is {fields[name]}; give a number from 0, or a name")
                return fields[name]  # type: ignore[no-any-return]
        text = labels.get("cls", b"").decode().strip()
    except UnicodeDecodeError as error:
        raise _error(tar, key, "its label is not UTF-8; write it again") from error
    except json.JSONDecodeError as error:
        raise _error(tar, key, f"its .json is not valid ({error}); write it again") from error
    if not text:
        raise _error(tar, key, "it has no label; add `label` or `class_name` to a .json, or a .cls")
    return int(text) if text.isdecimal() else text


def _names_of(labels: set[int | str], root: Path) -> tuple[str, ...]:
    """List the names, sorted; those of numbers by the number.

    >>> _names_of({"wren", "crow"}, Path()), _names_of({10, 9}, Path())
    (('crow', 'wren'), ('9', '10'))
    """
    numbers = [label for label in labels if isinstance(label, int)]
    if 0 < len(numbers) < len(labels):
        raise DataError(
            f"{root}: labels are both numbers and names; give one kind, or {CLASSES_FILE} with all names"
        )
    return tuple(map(str, sorted(numbers or labels)))


def _label(label: int | str, path: Path, label_of: dict[str, int]) -> int:
    """Convert a label to a number, and check its range."""
    number = label_of.get(label, -1) if isinstance(label, str) else label
    if not 0 <= number < len(label_of):
        raise DataError(
            f"{path}: its label is {label!r}; {CLASSES_FILE} lists {len(label_of)} classes, from 0"
        )
    return number


def _error(tar: Path, key: str, what: str) -> DataError:
    return DataError(f"{tar}, sample {key}: {what}")

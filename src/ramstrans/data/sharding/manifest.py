"""Data sets in tar shards: read as a list of records like any other, whose images are members of tars.

A set written by `write_shards` is a folder of

    shards.json            version, class names, and each shard's split, sizes and SHA-256
    train-000000.tar       000123.jpg, the file unchanged, and 000123.json, its labels, as in WebDataset
    train-000000.jsonl     one line per image: its labels again, and where it is in the tar
    ...

The number in a name is the image's index in the data set. Records are read in that order, so that shards
give the same batches as the folder, to the bit. Tars that others wrote are read by `tar_samples`.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from ramstrans.console import Progress, no_progress
from ramstrans.data.datasets.tar_samples import read_tar_samples
from ramstrans.data.detect import MANIFEST
from ramstrans.data.reading.retry import open_retrying, retry
from ramstrans.data.reading.tars import has_list, list_of
from ramstrans.data.records import ImageSet, Part, Record, Split
from ramstrans.errors import DataError

VERSION = 1


class Shard(NamedTuple):
    """One tar of a set, as in `shards.json`.

    Attributes:
        file: Its name in the folder.
        split: The split of all its images.
        num_images: Images in it.
        num_bytes: Its size.
        sha256: Of the tar.
        list_sha256: Of the list beside it.
    """

    file: str
    split: Split
    num_images: int
    num_bytes: int
    sha256: str
    list_sha256: str


class Manifest(NamedTuple):
    """Content of `shards.json`: classes, hierarchy and ranks as in `ImageSet`, and shards, split by split."""

    class_names: tuple[str, ...]
    hierarchy: tuple[tuple[str, ...], ...]
    shards: tuple[Shard, ...]
    ranks: tuple[str, ...] = ()


def read_shards(root: Path) -> ImageSet:
    """Read a data set in tar shards: ours by their lists, those of others by `tar_samples`.

    Ours have the classes, records and order that they were written with. A record's path leads into its tar,
    as `root/train-000000.tar/000123.jpg`. The tars' sizes are checked, not their checksums: see
    `verify_shards`. A record takes 0.6 KB of memory, 0.8 with a box, 3 with 15 parts as well: 2.7 million
    without boxes take 1.5 GB. The offsets take 26 bytes per image, in every process that reads images.

    Raises:
        DataError: Naming the file that is missing, damaged or of another version.
    """
    if not (root / MANIFEST).is_file():
        # ours, read as foreign tars, would have another order
        if listed := [tar for tar in sorted(root.glob("*.tar")) if has_list(tar)]:
            list_name = list_of(listed[0]).name
            raise DataError(f"{root / MANIFEST} is missing, but {list_name} exists; copy it too")
        return read_tar_samples(root)
    manifest = read_manifest(root)
    indexed: list[tuple[int, Record]] = []
    for shard in manifest.shards:
        _check_size(root, shard)
        indexed.extend(_records(root, shard))
    indexed.sort(key=itemgetter(0))
    records = tuple(record for _, record in indexed)
    return ImageSet(manifest.class_names, records, manifest.hierarchy, manifest.ranks)


def verify_shards(root: Path, progress: Progress = no_progress) -> list[DataError]:
    """Read every shard of a set; return an error for each that is not as written.

    Raises:
        DataError: There is no `shards.json`, or it is damaged.
    """
    manifest = read_manifest(root)
    errors = []
    for done, shard in enumerate(manifest.shards, start=1):
        try:
            _verify(root, shard)
        except DataError as error:
            errors.append(error)
        progress(done, len(manifest.shards), "verifying checksums")
    return errors


def read_manifest(root: Path) -> Manifest:
    """Read `shards.json`.

    Raises:
        DataError: It is missing, damaged, or of another version.
    """
    file = root / MANIFEST
    content = _read(file, "copy it, or write shards by `ramstrans data shard ROOT OUT`")
    try:
        fields = json.loads(content)
        version = fields["version"]
        if version == VERSION:
            hierarchy = tuple(map(tuple, fields["hierarchy"]))
            shards = tuple(Shard(**shard) for shard in fields["shards"])
            ranks = tuple(fields.get("ranks", ()))  # which earlier sets do not have
            return Manifest(tuple(fields["class_names"]), hierarchy, shards, ranks)
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{file} is damaged ({error}); copy it again") from error
    raise DataError(f"{file} has version {version}; this ramstrans reads {VERSION}: write the shards again")


def _read(file: Path, hint: str = "copy it again") -> bytes:
    with _naming(file, hint):
        return retry(file.read_bytes, file)


@contextmanager
def _naming(file: Path, hint: str = "copy it again") -> Iterator[None]:
    """Turn errors of reading a file into one that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{file} is missing; {hint}") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error


def _check_size(root: Path, shard: Shard) -> None:
    tar = root / shard.file
    with _naming(tar):
        num_bytes = tar.stat().st_size
    if num_bytes != shard.num_bytes:
        raise DataError(f"{tar} has {num_bytes:,} bytes; {MANIFEST} says {shard.num_bytes:,}: copy it again")


def _records(root: Path, shard: Shard) -> Iterator[tuple[int, Record]]:
    """Each record of a shard with its index in the data set."""
    tar = root / shard.file
    for fields in _listed(tar, shard):
        box = tuple(fields["box"]) if fields.get("box") else None
        # the same few names again and again: one string each
        parts = tuple(Part(sys.intern(name), x, y) for name, x, y in fields.get("parts", ()))
        record = Record(tar / fields["file"], fields["label"], shard.split, box, parts)
        yield int(fields["file"].partition(".")[0]), record


def _listed(tar: Path, shard: Shard) -> Iterator[dict[str, Any]]:
    """The lines of a shard's list; it is read whole at every start, so its checksum costs little."""
    file = list_of(tar)
    content = _read(file)
    if hashlib.sha256(content).hexdigest() != shard.list_sha256:
        raise DataError(f"{file} is damaged: its SHA-256 is not that of {MANIFEST}; copy it again")
    return map(json.loads, content.splitlines())


def _verify(root: Path, shard: Shard) -> None:
    _check_size(root, shard)
    tar = root / shard.file
    _listed(tar, shard)
    with _naming(tar), open_retrying(tar) as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 != shard.sha256:
        raise DataError(f"{tar} is damaged: its SHA-256 is not that of {MANIFEST}; copy it again")

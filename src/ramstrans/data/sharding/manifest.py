"""Data sets in tar shards: read as a list of records like any other, whose photographs lie in the tars.

A set written by `shard_writer` is a folder of

    shards.json            version, class names, and for each shard its split, sizes and SHA-256
    train-000000.tar       000123.jpg, the file as it was, and 000123.json, its labels, as WebDataset has them
    train-000000.jsonl     one line a photograph: its labels again, and where in the tar it lies
    ...

The number in a name is the photograph's place in the data set. Reading puts the records in that order, so
that shards give what the folder gave, to the bit. Tars that others wrote are for `tar_samples`.
"""

import hashlib
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from ramstrans.data.datasets.tar_samples import read_tar_samples
from ramstrans.data.reading.retry import is_file, open_retrying, retry
from ramstrans.data.reading.tars import find_member, list_of
from ramstrans.data.records import ImageSet, Part, Record, Split
from ramstrans.data.splits import check_classes
from ramstrans.errors import DataError

MANIFEST = "shards.json"
VERSION = 1

_CHUNK_BYTES = 1 << 20
_MAX_NAMED = 5


class Shard(NamedTuple):
    """One tar of a set, as `shards.json` has it.

    Attributes:
        file: Its name in the folder.
        split: Of all its photographs.
        num_images: Photographs in it.
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
    """What `shards.json` says: classes and hierarchy as in `ImageSet`, and the shards, split by split."""

    class_names: tuple[str, ...]
    hierarchy: tuple[tuple[str, ...], ...]
    shards: tuple[Shard, ...]


def read_shards(root: Path) -> ImageSet:
    """Read a data set in tar shards, ours by their lists, those of others by `tar_samples`.

    The tars' sizes are checked, not their checksums: see `verify_shards`. A record's path leads into its
    tar, as `root/train-000000.tar/000123.jpg`. A record takes 0.6 KB of memory, 0.8 with a box, 3 with 15
    parts too: 2.7 million without boxes take 1.5 GB. Where they lie takes 26 bytes each, in every process
    that reads photographs.

    Args:
        root: The folder of the shards.

    Returns:
        Classes, records and their order as they were when the shards were written.

    Raises:
        DataError: Naming the file that is missing, damaged or of another version.
    """
    if not is_file(root / MANIFEST):
        _check_foreign(root)
        return read_tar_samples(root)
    manifest = read_manifest(root)
    placed: list[tuple[int, Record]] = []
    for shard in manifest.shards:
        _check_size(root, shard)
        placed.extend(_records(root, shard))
    placed.sort(key=itemgetter(0))
    images = ImageSet(manifest.class_names, tuple(record for _, record in placed), manifest.hierarchy)
    check_classes(images)
    return images


def verify_shards(root: Path, progress: Callable[[int, int], None] | None = None) -> list[DataError]:
    """Read every shard of a set to its end, and return an error for each that is not as it was written.

    Args:
        root: The folder of the shards.
        progress: Called after each shard with the number of shards done and their total.

    Returns:
        The errors, in the order of the shards; they name the photographs that are damaged.

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
        if progress is not None:
            progress(done, len(manifest.shards))
    return errors


def read_manifest(root: Path) -> Manifest:
    """Read `shards.json`.

    Raises:
        DataError: It is missing, damaged, or of another version.
    """
    file = root / MANIFEST
    try:
        fields = json.loads(retry(file.read_bytes, file))
        version = fields["version"]
        if version == VERSION:
            return Manifest(
                tuple(fields["class_names"]),
                tuple(map(tuple, fields["hierarchy"])),
                tuple(Shard(**shard) for shard in fields["shards"]),
            )
    except FileNotFoundError as error:
        raise DataError(
            f"{file} is missing; copy it, or write shards by `ramstrans data shard ROOT OUT`"
        ) from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{file} is damaged ({error}); copy it again") from error
    raise DataError(f"{file} is of version {version}; this ramstrans reads {VERSION}: write the shards anew")


def _check_foreign(root: Path) -> None:
    """Refuse a set of our own without its `shards.json`: as tars of others it would have another order."""
    try:
        tars = retry(lambda: sorted(root.glob("*.tar")), root)
        listed = [tar for tar in tars if is_file(list_of(tar))]
    except OSError as error:
        raise DataError(f"{root} cannot be read as a folder: {error.strerror or error}") from error
    if listed:
        raise DataError(f"{root / MANIFEST} is missing, but {list_of(listed[0]).name} is there; copy it too")


def _check_size(root: Path, shard: Shard) -> None:
    tar = root / shard.file
    try:
        num_bytes = retry(tar.stat, tar).st_size
    except FileNotFoundError as error:
        raise DataError(f"{tar} is missing; copy it again") from error
    except OSError as error:
        raise DataError(f"{tar} cannot be read: {error.strerror or error}") from error
    if num_bytes != shard.num_bytes:
        raise DataError(f"{tar} has {num_bytes:,} bytes; {MANIFEST} says {shard.num_bytes:,}: copy it again")


def _records(root: Path, shard: Shard) -> Iterator[tuple[int, Record]]:
    """Each record of a shard with its place in the data set."""
    tar = root / shard.file
    for fields in _listed(tar, shard):
        box, parts = fields.get("box"), fields.get("parts", ())
        yield (
            int(fields["file"].partition(".")[0]),
            Record(
                tar / fields["file"],
                fields["label"],
                shard.split,
                None if box is None else tuple(box),
                # the same few names again and again: one string each
                tuple(Part(sys.intern(name), x, y) for name, x, y in parts),
            ),
        )


def _listed(tar: Path, shard: Shard) -> Iterator[dict[str, Any]]:
    """The lines of a shard's list, which is read whole at each start, and so verified."""
    file = list_of(tar)
    try:
        content = retry(file.read_bytes, file)
    except FileNotFoundError as error:
        raise DataError(f"{file} is missing; copy it again") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != shard.list_sha256:
        raise DataError(f"{file} is damaged: its SHA-256 is not that of {MANIFEST}; copy it again")
    return map(json.loads, content.splitlines())


def _verify(root: Path, shard: Shard) -> None:
    _check_size(root, shard)
    tar = root / shard.file
    entries = list(_listed(tar, shard))
    try:
        if _sha256(tar) != shard.sha256:
            raise DataError(
                f"{tar} is damaged: its SHA-256 is not that of {MANIFEST}; {_damage(tar, entries)}; "
                "copy it again"
            )
    except OSError as error:
        raise DataError(f"{tar} cannot be read: {error.strerror or error}") from error


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with open_retrying(file) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _damage(tar: Path, entries: list[dict[str, Any]]) -> str:
    """Which photographs of a tar are not as they were."""
    damaged = [entry["file"] for entry in entries if not _is_whole(tar / entry["file"], entry["crc32"])]
    if not damaged:
        return "its photographs are whole"
    more = f" and {len(damaged) - _MAX_NAMED} more" if len(damaged) > _MAX_NAMED else ""
    return f"damaged are {', '.join(damaged[:_MAX_NAMED])}{more}"


def _is_whole(path: Path, crc32: int) -> bool:
    try:
        member = find_member(path)
        return member is not None and zlib.crc32(member.read()) == crc32
    except DataError:
        return False

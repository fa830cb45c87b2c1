"""Writes a data set into tar shards, see `shards`: the photographs' bytes as they are, not decoded."""

import hashlib
import json
import random
import re
import shutil
import tarfile
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ramstrans.data.reading.decode import open_file
from ramstrans.data.reading.tars import find_member, list_of
from ramstrans.data.records import SPLITS, ImageSet, Record
from ramstrans.data.sharding.manifest import MANIFEST, VERSION, Shard
from ramstrans.data.splits import check_classes
from ramstrans.errors import OutputError, UnreadableImageError, UsageError

MAX_BYTES = 1_000_000_000
MAX_IMAGES = 10_000

_OVERHEAD = 4096
"""Bytes that a photograph takes on top of its own, at most in practice: headers, labels, list, filling."""

_SUFFIX = re.compile(r"\.[a-z0-9]+")


def write_shards(
    images: ImageSet,
    output: Path,
    *,
    root: Path | None = None,
    max_bytes: int = MAX_BYTES,
    max_images: int = MAX_IMAGES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the photographs of a data set, with labels, boxes and parts, into shards of one split each.

    Training images are dealt to the shards at random, so that few shards at a time are a fair sample (see
    `order.windowed_order`); those of the other splits stay in order, to be read in order. The same files
    and arguments give the same bytes. The folder appears only once it is complete.

    Args:
        images: The data set; its photographs may lie in tars already.
        output: Folder to make; may exist if it is empty.
        root: Paths below it are noted relative to it, in each label's `path`; others as they are.
        max_bytes: Of the photographs in a shard, 1 or more; a larger one has a shard of its own. Headers
            and labels come on top, 2 to 4 KB a photograph.
        max_images: Photographs in a shard, 1 or more.
        seed: Of the dealing.
        progress: Called after each photograph with the number done and their total.

    Raises:
        UsageError: A limit below 1.
        DataError: A class has no training images; such a set would not be read.
        OutputError: The folder holds something, its disk is too small, or it cannot be written.
        UnreadableImageError: A photograph cannot be read, or is empty.
    """
    for name, limit in (("max_bytes", max_bytes), ("max_images", max_images)):
        if limit < 1:
            raise UsageError(f"{name} is {limit}; give 1 or more")
    check_classes(images)
    partial = output.parent / f".{output.name}-{uuid.uuid4().hex[:8]}.partial"
    try:
        if output.exists() and any(output.iterdir()):
            raise OutputError(f"{output} is not empty; give a new folder, or remove this one first")
        partial.mkdir(parents=True)
        sizes = [_file_size(record.path) for record in images.records]
        _check_space(partial, output, sum(sizes) + _OVERHEAD * len(sizes))
        plan = _plan(images.records, sizes, max_bytes, max_images, seed)
        _write(images, plan, partial, root, progress)
        partial.replace(output)
    except OSError as error:
        raise OutputError(
            f"{output} cannot be written: {error.strerror or error}; give another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def cut_into_runs(sizes: Sequence[int], max_bytes: int, max_images: int) -> Iterator[slice]:
    """Cut a row of files into runs, each as long as the limits allow, at least one file.

    >>> [(run.start, run.stop) for run in cut_into_runs([3, 4, 9, 1, 1, 1], max_bytes=7, max_images=2)]
    [(0, 2), (2, 3), (3, 5), (5, 6)]
    """
    start = num_bytes = 0
    for place, size in enumerate(sizes):
        if place > start and (num_bytes + size > max_bytes or place - start == max_images):
            yield slice(start, place)
            start, num_bytes = place, 0
        num_bytes += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def _plan(
    records: Sequence[Record], sizes: Sequence[int], max_bytes: int, max_images: int, seed: int
) -> dict[str, list[int]]:
    """Names of the tars, and the places of the records that go there."""
    plan = {}
    for split in SPLITS:
        places = [place for place, record in enumerate(records) if record.split == split]
        if split == "train":
            random.Random(seed).shuffle(places)
        runs = cut_into_runs([sizes[place] for place in places], max_bytes, max_images)
        for number, run in enumerate(runs):
            plan[f"{split}-{number:06d}.tar"] = places[run]
    return plan


def _write(
    images: ImageSet,
    plan: dict[str, list[int]],
    folder: Path,
    root: Path | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write each tar and its list, and at last what makes a data set of them."""
    shards, num_done = [], 0
    for name, places in plan.items():
        tar, lines = _HashedTar(folder / name), []
        with tar.stream:
            for place in places:
                lines.append(_add(tar, images, place, root))
                num_done += 1
                if progress is not None:
                    progress(num_done, len(images.records))
            tar.end()
        listed = "".join(json.dumps(line) + "\n" for line in lines).encode()
        list_of(folder / name).write_bytes(listed)
        split = images.records[places[0]].split
        sha256, list_sha256 = tar.digest.hexdigest(), hashlib.sha256(listed).hexdigest()
        shards.append(Shard(name, split, len(places), tar.num_bytes, sha256, list_sha256)._asdict())
    manifest = {
        "version": VERSION,
        "class_names": images.class_names,
        "hierarchy": images.hierarchy,
        "shards": shards,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _add(tar: "_HashedTar", images: ImageSet, place: int, root: Path | None) -> dict[str, Any]:
    """Add a photograph and its labels to a tar; returns its line of the list."""
    record, key = images.records[place], f"{place:06d}"
    name, content = key + _suffix(record.path), _content(record.path)
    labels = _labels(record, images.class_names[record.label], root)
    offset = tar.add(name, content)
    tar.add(f"{key}.json", json.dumps(labels).encode())
    return {"file": name, "offset": offset, "size": len(content), "crc32": zlib.crc32(content)} | labels


def _labels(record: Record, class_name: str, root: Path | None) -> dict[str, Any]:
    """What is known of a photograph."""
    path = record.path
    if root is not None and path.is_relative_to(root):
        path = path.relative_to(root)
    labels: dict[str, Any] = {"label": record.label, "class_name": class_name}
    if record.box is not None:
        labels["box"] = record.box
    if record.parts:
        labels["parts"] = record.parts
    return labels | {"path": path.as_posix()}


def _suffix(path: Path) -> str:
    """A file's suffix as WebDataset knows it, in lower case; `.img` where it has none that will do.

    >>> _suffix(Path("wren.JPG")), _suffix(Path("wren")), _suffix(Path("wren.json"))
    ('.jpg', '.img', '.img')
    """
    suffix = path.suffix.lower()
    return suffix if _SUFFIX.fullmatch(suffix) and suffix not in (".json", ".cls") else ".img"


def _content(path: Path) -> bytes:
    try:
        with open_file(path) as stream:
            return stream.read()
    except OSError as error:
        raise UnreadableImageError(path, _reason(error)) from error


def _file_size(path: Path) -> int:
    try:
        member = find_member(path)
        return path.stat().st_size if member is None else member.size()
    except OSError as error:
        raise UnreadableImageError(path, _reason(error)) from error


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _check_space(folder: Path, output: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{output} takes about {needed / 1e9:,.1f} GB, its disk has {free / 1e9:,.1f} GB left; "
            "free some, or give another folder"
        )


class _HashedTar:
    """A tar that is written from start to end, and tells nothing of when and by whom.

    `tarfile` itself would have to go back over the file for the SHA-256.

    Args:
        path: The file.

    Attributes:
        stream: To be closed.
        num_bytes: Written so far.
        digest: SHA-256 of them.
    """

    def __init__(self, path: Path) -> None:
        self.stream = path.open("wb")
        self.num_bytes = 0
        self.digest = hashlib.sha256()

    def add(self, name: str, content: bytes) -> int:
        """Add a file; returns where its content lies."""
        info = tarfile.TarInfo(name)
        info.size = len(content)
        self._write(info.tobuf(tarfile.USTAR_FORMAT))
        offset = self.num_bytes
        self._write(content)
        self._fill(tarfile.BLOCKSIZE)
        return offset

    def end(self) -> None:
        """Write the mark of the end, two empty blocks and what fills the record."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._fill(tarfile.RECORDSIZE)

    def _fill(self, unit: int) -> None:
        self._write(bytes(-self.num_bytes % unit))

    def _write(self, content: bytes) -> None:
        self.stream.write(content)
        self.digest.update(content)
        self.num_bytes += len(content)

"""Writes a data set into tar shards, see `manifest`: image files unchanged, not decoded."""

import hashlib
import io
import json
import random
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ramstrans.console import Progress, no_progress
from ramstrans.data.detect import MANIFEST
from ramstrans.data.reading.decode import open_file
from ramstrans.data.reading.retry import retry
from ramstrans.data.reading.tars import find_member, list_of
from ramstrans.data.records import SPLITS, ImageSet, Record, Split
from ramstrans.data.sharding.manifest import VERSION, Shard
from ramstrans.data.splits import check_classes
from ramstrans.errors import UnreadableImageError, UsageError
from ramstrans.files import check_room, new_folder, not_writable

T = TypeVar("T")

MAX_BYTES = 1_000_000_000
MAX_IMAGES = 10_000

_OVERHEAD = 4096
"""Bytes per image on top of its own, at most in practice: headers, labels, list, padding."""

_SUFFIX = re.compile(r"\.[a-z0-9]+")


def write_shards(
    images: ImageSet,
    output: Path,
    *,
    root: Path | None = None,
    max_bytes: int = MAX_BYTES,
    max_images: int = MAX_IMAGES,
    seed: int = 0,
    progress: Progress = no_progress,
) -> None:
    """Write the images of a data set, with labels, boxes and parts, into shards of one split each.

    Training images are distributed over the shards at random, so that a few shards are a fair sample (see
    `sampling.windowed_order`); those of the other splits stay in order. The same files and arguments give
    the same bytes. The folder appears only once it is complete.

    Args:
        images: The data set; its images may be in tars already.
        output: Folder to create; may exist if it is empty.
        root: Paths below it are written relative to it, in each label's `path`; others as they are.
        max_bytes: Maximum bytes of images per shard, 1 or more; a larger image has a shard of its own.
            Headers and labels come on top, 2 to 4 KB per image.
        max_images: Maximum images per shard, 1 or more.
        seed: Seed of the random distribution.
        progress: Called after each image.

    Raises:
        UsageError: A limit below 1.
        DataError: A class has no training images; such a set could not be read.
        OutputError: The folder is not empty, its disk is too small, or it cannot be written.
        UnreadableImageError: An image cannot be read, or is empty.
    """
    for name, limit in (("max_bytes", max_bytes), ("max_images", max_images)):
        if limit < 1:
            raise UsageError(f"{name} is {limit}; give 1 or more")
    check_classes(images)
    with new_folder(output) as draft:
        try:
            sizes = [_read(record.path, _file_size) for record in images.records]
            plan = _plan(images.records, sizes, max_bytes, max_images, seed)
            check_room(draft.parent, sum(sizes) + _OVERHEAD * len(sizes), "the shards")
            _write(images, plan, draft, root, progress)
        except OSError as error:
            raise not_writable(output, error) from error


def cut_into_runs(sizes: Sequence[int], max_bytes: int, max_images: int) -> Iterator[slice]:
    """Cut a sequence of files into runs, each as long as the limits allow, at least one file.

    >>> [(run.start, run.stop) for run in cut_into_runs([3, 4, 9, 1, 1, 1], max_bytes=7, max_images=2)]
    [(0, 2), (2, 3), (3, 5), (5, 6)]
    """
    start = num_bytes = 0
    for index, size in enumerate(sizes):
        if index > start and (num_bytes + size > max_bytes or index - start == max_images):
            yield slice(start, index)
            start, num_bytes = index, 0
        num_bytes += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def _plan(
    records: Sequence[Record], sizes: Sequence[int], max_bytes: int, max_images: int, seed: int
) -> dict[str, list[int]]:
    """For the name of each tar, the indices of its records."""
    plan = {}
    for split in SPLITS:
        indices = [index for index, record in enumerate(records) if record.split == split]
        if split == "train":
            random.Random(seed).shuffle(indices)
        runs = cut_into_runs([sizes[index] for index in indices], max_bytes, max_images)
        for number, run in enumerate(runs):
            plan[f"{split}-{number:06d}.tar"] = indices[run]
    return plan


def _write(
    images: ImageSet, plan: dict[str, list[int]], folder: Path, root: Path | None, progress: Progress
) -> None:
    """Write each tar and its list, and finally the manifest."""
    shards, num_done = [], 0
    for name, indices in plan.items():
        lines = []
        with (
            (folder / name).open("wb") as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for index in indices:
                offset = stream.tell() + tarfile.BLOCKSIZE  # after its header
                lines.append(_add(archive, offset, images, index, root))
                num_done += 1
                progress(num_done, len(images.records), "writing")
        shards.append(_finish(folder / name, images.records[indices[0]].split, lines)._asdict())
    known = {"class_names": images.class_names, "hierarchy": images.hierarchy, "ranks": images.ranks}
    manifest = {"version": VERSION, **known, "shards": shards}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _add(
    archive: tarfile.TarFile, offset: int, images: ImageSet, index: int, root: Path | None
) -> dict[str, Any]:
    """Add an image, whose content comes at `offset`, and its labels; returns its line of the list."""
    record, key = images.records[index], f"{index:06d}"
    name, content = key + _suffix(record.path), _read(record.path, _content)
    labels = _labels(record, images.class_names[record.label], root)
    for member, data in ((name, content), (f"{key}.json", json.dumps(labels).encode())):
        info = tarfile.TarInfo(member)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return {"file": name, "offset": offset, "size": len(content)} | labels


def _finish(tar: Path, split: Split, lines: list[dict[str, Any]]) -> Shard:
    """Write the list of a tar; its entry of the manifest."""
    listed = "".join(json.dumps(line) + "\n" for line in lines).encode()
    list_of(tar).write_bytes(listed)
    with tar.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return Shard(tar.name, split, len(lines), tar.stat().st_size, sha256, hashlib.sha256(listed).hexdigest())


def _labels(record: Record, class_name: str, root: Path | None) -> dict[str, Any]:
    """The content of an image's JSON file."""
    path = record.path
    if root is not None and path.is_relative_to(root):
        path = path.relative_to(root)
    box = {} if record.box is None else {"box": record.box}
    parts = {"parts": record.parts} if record.parts else {}
    return {"label": record.label, "class_name": class_name, **box, **parts, "path": path.as_posix()}


def _suffix(path: Path) -> str:
    """A file's suffix as WebDataset knows it, in lower case; `.img` if it has none that will do.

    >>> _suffix(Path("wren.JPG")), _suffix(Path("wren")), _suffix(Path("wren.json"))
    ('.jpg', '.img', '.img')
    """
    suffix = path.suffix.lower()
    return suffix if _SUFFIX.fullmatch(suffix) and suffix not in (".json", ".cls") else ".img"


def _read(path: Path, read: Callable[[Path], T]) -> T:
    """Read an image; an error names it."""
    try:
        return retry(partial(read, path), path)
    except OSError as error:
        raise UnreadableImageError(path, (error.strerror or type(error).__name__).lower()) from error


def _content(path: Path) -> bytes:
    with open_file(path) as stream:
        return stream.read()


def _file_size(path: Path) -> int:
    member = find_member(path)
    return path.stat().st_size if member is None else member.size()

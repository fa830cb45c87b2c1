"""Resized photographs kept for the next epoch in memory, or for every process and run on disk."""

import hashlib
import json
import os
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL
import torch

from ramstrans.data.config import DataConfig
from ramstrans.data.loading.transforms import Size
from ramstrans.data.reading.decode import check_shape
from ramstrans.data.reading.photographs import DECODING_VERSION, ResizedImage, read_resized
from ramstrans.data.reading.retry import read_array
from ramstrans.data.reading.tars import file_status
from ramstrans.files import not_writable, write_file

_NUMBER_BYTES = 4
_HINT = "give another --data.cache_dir, or --data.cache none"


class MemoryCache:
    """Resized photographs in the memory of this process; each worker of a loader fills its own."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, int | Size], ResizedImage] = {}

    def read(
        self, path: Path, resize: int | Size, *, max_pixels: int = DataConfig.max_pixels
    ) -> ResizedImage:
        """As `read_resized`; each file is decoded once."""
        key = path, resize
        if key not in self._kept:
            self._kept[key] = read_resized(path, resize, max_pixels=max_pixels)
        return self._kept[key]


class DiskCache:
    """Resized photographs in a folder that processes and runs share, and that may be deleted at any time.

    There is one file for each photograph and resize. It tells what it was made of, and is made anew when
    the size or date of the photograph, or of its tar, has changed, or what decodes it. A damaged one is
    never used: it is warned of, counted, and made anew.

    A file is a checksum of the rest, the length of a header, the header in JSON, and the pixels (h, w, 3)
    uint8 as they are: 1 MB is read and checked in 0.7 ms, where PNG takes 13.

    Args:
        folder: Made if it is missing.

    Attributes:
        num_damaged: Files found damaged by this object; each worker of a loader has its own.

    Raises:
        OutputError: The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_damaged = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_writable(folder, error, _HINT) from error

    def read(
        self, path: Path, resize: int | Size, *, max_pixels: int = DataConfig.max_pixels
    ) -> ResizedImage:
        """As `read_resized`; each file is decoded once, by whoever comes first.

        Raises:
            UnreadableImageError: It cannot be decoded.
            OutputError: It cannot be kept.
        """
        try:
            key = _key(path, resize)  # before it is decoded: a file that changes meanwhile is read again
        except OSError:
            return read_resized(path, resize, max_pixels=max_pixels)  # which says what is wrong with it
        kept = self._load(self._file(path, resize), key)
        if kept is None:
            kept = read_resized(path, resize, max_pixels=max_pixels)
            self._save(self._file(path, resize), key, kept)
        height, width = kept.original_size
        check_shape(path, (width, height), max_pixels)
        return kept

    def _file(self, path: Path, resize: int | Size) -> Path:
        """Where a photograph is kept, by its place and the resize only: a new version replaces the old."""
        name = hashlib.sha256(json.dumps([str(path.absolute()), resize]).encode()).hexdigest()
        return self.folder / name[:2] / name

    def _load(self, file: Path, key: str) -> ResizedImage | None:
        """What is kept in a file, or None if it is missing, was made of something else, or is damaged."""
        try:
            content = read_array(file)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            content = np.empty(0, np.uint8)
        body = content[_NUMBER_BYTES:]
        if not body.size or content[:_NUMBER_BYTES].tobytes() != _checksum(body.data):
            self.num_damaged += 1
            warnings.warn(f"{file} is damaged; it is made anew", stacklevel=2)
            return None
        end = _NUMBER_BYTES + int.from_bytes(body[:_NUMBER_BYTES].tobytes(), "little")
        header = json.loads(body[_NUMBER_BYTES:end].tobytes())
        if header["key"] != key:
            return None
        pixels = body[end:].reshape(*header["size"], 3)
        height, width = header["original_size"]
        return ResizedImage(torch.from_numpy(pixels).permute(2, 0, 1), (height, width))

    def _save(self, file: Path, key: str, photograph: ResizedImage) -> None:
        pixels = photograph.pixels.permute(1, 2, 0).contiguous()
        header = {"key": key, "size": tuple(pixels.shape[:2]), "original_size": photograph.original_size}
        line = json.dumps(header).encode()
        body = len(line).to_bytes(_NUMBER_BYTES, "little") + line + pixels.numpy().tobytes()
        write_file(file, _checksum(body) + body, sync=False, hint=_HINT)


def default_cache_dir() -> Path:
    """`ramstrans/images` in the user's cache folder: `$XDG_CACHE_HOME`, or `~/.cache` without it."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))  # to be ignored if relative, says its specification
    return (given if given.is_absolute() else Path.home() / ".cache") / "ramstrans" / "images"


def _key(path: Path, resize: int | Size) -> str:
    """All that the pixels depend on."""
    status = file_status(path)
    decoder = [DECODING_VERSION, PIL.__version__, torch.__version__]
    return json.dumps([str(path.absolute()), status.st_size, status.st_mtime_ns, resize, decoder])


def _checksum(body: bytes | memoryview) -> bytes:
    return zlib.crc32(body).to_bytes(_NUMBER_BYTES, "little")

"""Resized images kept for the next epoch: in memory, or on disk for every process and run."""

import hashlib
import json
import logging
import os
from pathlib import Path

import PIL
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ramstrans.data.config import DataConfig
from ramstrans.data.preprocessing import Reading
from ramstrans.data.reading.decode import DECODING_VERSION, ResizedImage, check_shape, read_resized
from ramstrans.data.reading.tars import file_status
from ramstrans.files import not_writable, write_file

logger = logging.getLogger(__name__)

_HINT = "give another --data.cache_dir, or --data.cache none"


class MemoryCache:
    """Resized images in the memory of this process; each loader process fills its own."""

    def __init__(self) -> None:
        self._images: dict[tuple[Path, Reading], ResizedImage] = {}

    def read(self, path: Path, reading: Reading, *, max_pixels: int = DataConfig.max_pixels) -> ResizedImage:
        """As `read_resized`, decoding each file once."""
        key = path, reading
        if key not in self._images:
            self._images[key] = read_resized(path, reading, max_pixels=max_pixels)
        return self._images[key]


class DiskCache:
    """Resized images in a folder that processes and runs share, and that may be deleted at any time.

    Each image and resize has one safetensors file: `pixels`, (h, w, 3) uint8, with the original size and
    all that the pixels depend on as metadata. An entry whose image, tar or decoder has changed is rebuilt,
    and so is one that is not a whole safetensors file; its pixels have no checksum.

    Args:
        folder: Created if it is missing.

    Raises:
        OutputError: The folder cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_writable(folder, error, _HINT) from error

    def entry(self, path: Path, reading: Reading) -> Path:
        """The file of an image; named by path and size alone, so that a rebuilt one replaces the old one."""
        name = [str(path.absolute()), *reading]
        digest = hashlib.sha256(json.dumps(name).encode()).hexdigest()
        return self.folder / digest[:2] / digest

    def read(self, path: Path, reading: Reading, *, max_pixels: int = DataConfig.max_pixels) -> ResizedImage:
        """As `read_resized`; the first process that needs a file decodes it.

        Raises:
            UnreadableImageError: It cannot be decoded.
            OutputError: The entry cannot be written.
        """
        try:
            # before decoding: a file that changes meanwhile is decoded again
            key = _key(path, reading)
        except OSError:  # reading raises what is wrong with the file
            return read_resized(path, reading, max_pixels=max_pixels)
        entry = self.entry(path, reading)
        image = _load(entry, key)
        if image is None:
            image = read_resized(path, reading, max_pixels=max_pixels)
            metadata = {"key": key, "original_size": json.dumps(image.original_size)}
            content = save({"pixels": image.pixels.permute(1, 2, 0).contiguous()}, metadata)
            write_file(entry, content, sync=False, hint=_HINT)
        height, width = image.original_size
        check_shape(path, (width, height), max_pixels)
        return image


def default_cache_dir() -> Path:
    """`ramstrans/images` in the user's cache folder: `$XDG_CACHE_HOME`, or else `~/.cache`."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))  # its specification ignores relative paths
    return (given if given.is_absolute() else Path.home() / ".cache") / "ramstrans" / "images"


def _load(entry: Path, key: str) -> ResizedImage | None:
    """The image of an entry; None if it is missing, damaged, or made from something else."""
    try:
        with safe_open(entry, framework="pt") as file:
            metadata, pixels = file.metadata(), file.get_tensor("pixels")
        if metadata["key"] != key:
            logger.debug("%s is out of date; it is rebuilt", entry)
            return None
        height, width = json.loads(metadata["original_size"])
        return ResizedImage(pixels.permute(2, 0, 1), (height, width))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        logger.warning("%s is damaged (%s); it is rebuilt", entry, error)
        return None


def _key(path: Path, reading: Reading) -> str:
    """All that the pixels depend on."""
    status = file_status(path)
    decoder = [DECODING_VERSION, PIL.__version__, torch.__version__]
    wanted = [str(path.absolute()), *reading]
    return json.dumps([*wanted, status.st_size, status.st_mtime_ns, decoder])

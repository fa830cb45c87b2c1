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
from torch import Tensor

from ramstrans.data.config import DataConfig
from ramstrans.data.preprocessing import Reading
from ramstrans.data.reading.decode import DECODING_VERSION, check_shape
from ramstrans.data.reading.resize import ResizedImage, read_resized
from ramstrans.data.reading.tars import file_status
from ramstrans.files import make_folder, write_file

logger = logging.getLogger(__name__)

HINT = "give another --data.cache_dir, or --data.cache none"


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

    Each image and resize has one safetensors file: `pixels`, (h, w, 3) uint8, and `original_size`, with all
    that the pixels depend on as metadata. An entry whose image, tar or decoder has changed is rebuilt,
    and so is one that is not a whole safetensors file; its pixels have no checksum.

    Args:
        folder: Created if it is missing.

    Raises:
        OutputError: The folder cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_folder(folder, hint=HINT)

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
        found = read_keyed(entry, key, "pixels", "original_size")
        if found is None:
            image = read_resized(path, reading, max_pixels=max_pixels)
            pixels, size = image.pixels.permute(1, 2, 0).contiguous(), torch.tensor(image.original_size)
            write_keyed(entry, key, pixels=pixels, original_size=size)
        else:
            height, width = found[1].tolist()
            image = ResizedImage(found[0].permute(2, 0, 1), (height, width))
        check_shape(path, image.original_size[::-1], max_pixels)
        return image


def software() -> list[int | str]:
    """What pixels depend on besides their file: the versions of all that decodes."""
    return [DECODING_VERSION, PIL.__version__, torch.__version__]


def default_cache_dir() -> Path:
    """`ramstrans/images` in the user's cache folder: `$XDG_CACHE_HOME`, or else `~/.cache`."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))  # its specification ignores relative paths
    return (given if given.is_absolute() else Path.home() / ".cache") / "ramstrans" / "images"


def read_keyed(path: Path, key: str, *names: str) -> list[Tensor] | None:
    """Read tensors from a file of `write_keyed`; None if it is missing, damaged, or of another key."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = [file.get_tensor(name) for name in names]
            return tensors if file.metadata()["key"] == key else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, SafetensorError, LookupError, TypeError) as error:
        logger.warning("%s is damaged (%s); it is made again", path, error)
        return None


def write_keyed(path: Path, key: str, hint: str = HINT, **tensors: Tensor) -> None:
    """Write tensors with a text that says all that they depend on.

    Raises:
        OutputError: The file cannot be written.
    """
    write_file(path, save(tensors, {"key": key}), sync=False, hint=hint)


def _key(path: Path, reading: Reading) -> str:
    """All that the pixels depend on."""
    status = file_status(path)
    return json.dumps([str(path.absolute()), *reading, status.st_size, status.st_mtime_ns, *software()])

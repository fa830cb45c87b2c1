"""What goes into a predictor: files, folders, paths on standard input, images in memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from PIL import ImageOps

from ramstrans.data.datasets.image_folder import IMAGE_SUFFIXES
from ramstrans.data.loading.dataset import Example
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.reading.decode import ResizedImage, check_shape, read_resized, resize_in_memory, to_rgb
from ramstrans.data.reading.threads import in_threads
from ramstrans.errors import DataError, UnreadableImageError, UsageError
from ramstrans.inference.arguments import STDIN, why_missing
from ramstrans.inference.in_memory import ImageInput, is_image, path_of, to_source

NUM_THREADS = min(8, os.cpu_count() or 1)
"""Threads that decode images while the model computes."""

_is_folder = os.path.isdir  # False where Path.is_dir raises, e.g. because the name is too long


def read_input(image: ImageInput, preprocessing: Preprocessing, max_pixels: int) -> ResizedImage:
    """Read an image, upright and resized; a file, or its bytes, exactly as the evaluation reads it.

    Pixels in memory are all used, which may differ slightly from reading a large JPEG file, see
    `REDUCTION_MARGIN`. Images of more than `max_pixels` are refused.

    Raises:
        UnreadableImageError: It cannot be decoded.
        UsageError: It is none of `in_memory.ALLOWED`.
    """
    resize, fit = preprocessing.resize, preprocessing.fit
    source = to_source(image)
    if isinstance(source, Path):
        try:
            return read_resized(source, resize, fit, max_pixels=max_pixels)
        except UnreadableImageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise UnreadableImageError(source, why_missing(source)) from error
            raise
    name = "image in memory"
    if isinstance(source, bytes):
        return read_resized(Path(name), resize, fit, max_pixels=max_pixels, content=source)
    check_shape(name, source.size, max_pixels)
    try:
        upright = to_rgb(ImageOps.exif_transpose(source))
    except (OSError, SyntaxError, ValueError) as error:  # one that was opened but not yet read
        raise UnreadableImageError(name, f"damaged image ({error})") from error
    return resize_in_memory(upright, resize, fit)


def read_ahead(
    images: Iterable[ImageInput], read: Callable[[ImageInput], Example], num_ahead: int, timeout: float = 0.0
) -> Iterator[tuple[Path | None, Example | str]]:
    """Read images in threads, in order, with at most `num_ahead` of them in memory.

    Returns:
        An iterator over the path, None for an image in memory, and the example, or why it cannot be read.

    Raises:
        DataError: One took longer than `timeout` seconds; 0 is any time.
    """
    waiting: deque[Path | None] = deque()

    def noted() -> Iterator[ImageInput]:
        for image in images:
            waiting.append(path_of(image) if is_image(image) else None)
            yield image

    def example_or_reason(image: ImageInput) -> Example | str:
        try:
            return read(image)
        except UnreadableImageError as error:
            return error.reason

    try:
        for example in in_threads(example_or_reason, noted(), NUM_THREADS, timeout, max_ahead=num_ahead):
            yield waiting.popleft(), example
    except TimeoutError as error:
        raise DataError(
            f"{waiting[0] or 'an image in memory'} was not read within {timeout:g} seconds, the run's "
            "data.read_timeout; look for a file system that hangs"
        ) from error


def expand_inputs(arguments: Sequence[str | Path], stdin: Iterable[str]) -> Iterator[Path]:
    """List the image files that command-line arguments stand for, in order.

    A file stands for itself even if it is missing, so that it is reported among the others. A folder stands
    for all images in it and below, sorted by path, without hidden ones and links to folders. `-` stands for
    the paths on standard input, one per line, which are read as they are needed. The arguments themselves
    are checked at once.

    Raises:
        UsageError: No arguments, or `-` twice.
        DataError: A folder contains no images.

    >>> list(map(str, expand_inputs(["wren.jpg", "-"], ["crow.png", "owl.png"])))
    ['wren.jpg', 'crow.png', 'owl.png']
    """
    names = [str(argument) for argument in arguments]
    if not names:
        raise UsageError("no images were given; name files or folders, or - for a list on standard input")
    if names.count(STDIN) > 1:
        raise UsageError("- was given twice; standard input can be read only once")
    for name in names:
        if name != STDIN and _is_folder(name) and next(_images(Path(name)), None) is None:
            suffixes = " ".join(sorted(IMAGE_SUFFIXES))
            raise DataError(f"{name} contains no images ({suffixes}); name a folder with some, or files")
    lines = (line for line in (line.rstrip("\r\n") for line in stdin) if line.strip())
    listed = chain.from_iterable(lines if name == STDIN else (name,) for name in names)
    return chain.from_iterable(map(_expand, map(Path, listed)))


def _expand(path: Path) -> Iterator[Path]:
    """List a file as itself, a folder as its images; one without images as itself, to be reported."""
    images = _images(path) if _is_folder(path) else iter(())
    return chain((next(images, path),), images)


def _images(folder: Path) -> Iterator[Path]:
    """All images in a folder and below, sorted by path, one folder listed at a time."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        yield folder  # no permission to list it: reported like a file that cannot be read
        return
    for entry in entries:
        if _is_folder(entry):
            if not entry.is_symlink():  # it may be a loop
                yield from _images(entry)
        elif entry.suffix.lower() in IMAGE_SUFFIXES:
            yield entry

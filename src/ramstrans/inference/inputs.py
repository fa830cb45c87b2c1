"""What goes into a predictor: files, folders, paths on standard input, images in memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from PIL import ImageOps

from ramstrans.data.loading.dataset import Example
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.reading.color import to_rgb
from ramstrans.data.reading.decode import check_shape
from ramstrans.data.reading.listing import LeftOut, images_below
from ramstrans.data.reading.resize import ResizedImage, read_resized, resize_in_memory
from ramstrans.data.reading.threads import NUM_THREADS, in_threads
from ramstrans.errors import DataError, UnreadableImageError, UsageError
from ramstrans.inference.arguments import STDIN, why_missing
from ramstrans.inference.in_memory import ImageInput, is_image, path_of, to_source

_is_folder = os.path.isdir  # False where Path.is_dir raises, e.g. because the name is too long


def read_input(image: ImageInput, preprocessing: Preprocessing, max_pixels: int) -> ResizedImage:
    """Read an image, upright and resized; a file, or its bytes, exactly as the evaluation reads it.

    Pixels in memory are all used, which may differ slightly from reading a large JPEG file, see
    `REDUCTION_MARGIN`. Images of more than `max_pixels` are refused.

    Raises:
        UnreadableImageError: It cannot be decoded.
        UsageError: It is none of `in_memory.ALLOWED`.
    """
    source = to_source(image)
    if isinstance(source, Path):
        try:
            return read_resized(source, preprocessing.reading, max_pixels=max_pixels)
        except UnreadableImageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise UnreadableImageError(source, why_missing(source)) from error
            raise
    name = "image in memory"
    if isinstance(source, bytes):
        return read_resized(Path(name), preprocessing.reading, max_pixels=max_pixels, content=source)
    check_shape(name, source.size, max_pixels)
    try:
        upright = to_rgb(ImageOps.exif_transpose(source))
    except (OSError, SyntaxError, ValueError) as error:  # one that was opened but not yet read
        raise UnreadableImageError(name, f"damaged image ({error})") from error
    return resize_in_memory(upright, preprocessing.reading)


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


def expand_inputs(arguments: Sequence[str | Path], listed: Iterable[str] = ()) -> Iterator[Path]:
    """List the image files that command-line arguments stand for, in order.

    A file stands for itself even if it is missing, so that it is reported among the others. A folder stands
    for all images in it and below, sorted by path, without hidden ones and links to folders; once it is
    listed, one warning counts what was left out, by kind. `-` stands for the `listed` paths, those on
    standard input, which are read as they are needed. The arguments themselves are checked at once.

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
        if name != STDIN and _is_folder(name):
            _check_folder(Path(name))
    paths = chain.from_iterable(listed if name == STDIN else (name,) for name in names)
    return chain.from_iterable(map(_expand, map(Path, paths)))


def _expand(path: Path) -> Iterator[Path]:
    """List a file as itself, a folder as its images; one without images as itself, to be reported."""
    if not _is_folder(path):
        yield path
        return
    left_out, unlisted = LeftOut(), []
    images = images_below(path, left_out, lambda folder, _error: unlisted.append(folder))
    is_empty = True
    for image in images:
        is_empty = False
        yield image
    # no permission to list them: reported like files that cannot be read
    yield from unlisted or ([path] if is_empty else ())
    left_out.log(path)


def _check_folder(folder: Path) -> None:
    """Raise unless there is an image in a folder, or a folder that cannot be listed, which is reported."""
    left_out, unlisted = LeftOut(), []
    images = images_below(folder, left_out, lambda inner, _error: unlisted.append(inner))
    if next(images, None) is None and not unlisted:
        only = f", only {left_out}" if left_out else ""
        raise DataError(f"{folder} contains no images{only}; name a folder with some, or files")

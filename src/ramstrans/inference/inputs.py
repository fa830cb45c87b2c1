"""What goes into a predictor: files, folders, paths on standard input, images in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from PIL import ImageOps

from ramstrans.data.loading.dataset import Example
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.reading.color import to_rgb
from ramstrans.data.reading.decode import DECODER_ERRORS, check_shape
from ramstrans.data.reading.resize import ResizedImage, read_resized, resize_in_memory
from ramstrans.data.reading.threads import NUM_THREADS, in_threads
from ramstrans.errors import DataError, UnreadableImageError
from ramstrans.inference.arguments import why_missing
from ramstrans.inference.in_memory import ImageInput, is_image, path_of, to_source


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
    except DECODER_ERRORS as error:  # one that was opened but not yet read
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

"""Features of images, in order and in bounded memory, and their files."""

import io
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow
import torch
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

from ramstrans.data.loading.dataset import Example
from ramstrans.data.reading.decode import decode_reduced
from ramstrans.inference.arguments import name_of
from ramstrans.inference.batches import NO_IMAGE
from ramstrans.inference.in_memory import ImageInput
from ramstrans.inference.inputs import read_ahead
from ramstrans.inference.partitions import Item, Partition, Row, Written, write_rows
from ramstrans.inference.predictor import Predictor
from ramstrans.plain import utf8_text
from ramstrans.saved.embeddings import Made, schema_of

THUMBNAIL_SIDE, THUMBNAIL_QUALITY = 128, 60
"""Longer side in pixels, and WebP quality: about 3 kB."""


def features_of(
    predictor: Predictor, images: Iterable[ImageInput], batch_size: int = 32
) -> Iterator[tuple[Path | None, NDArray[np.float32] | None, str | None]]:
    """Path, features (S * D,) and error of each image, in order; either of the last two is None."""
    inputs = read_ahead(images, predictor.read, 2 * batch_size, predictor.read_timeout)
    while chunk := list(islice(inputs, batch_size)):
        examples = [example for _, example in chunk if isinstance(example, Example)]
        found = iter(_features(predictor, examples))
        for path, example in chunk:
            if isinstance(example, Example):
                yield path, next(found), None
            else:
                yield path, None, example


def _features(predictor: Predictor, examples: list[Example]) -> NDArray[np.float32]:
    """(B, S * D) of images that were read."""
    if not examples:
        return np.zeros((0, 0), np.float32)
    _, output = predictor.forward(examples)
    features = torch.stack([scale.feature.float() for scale in output.scales], dim=1)
    return np.asarray(features.flatten(1).cpu().numpy(), np.float32)


def rows_of(
    predictor: Predictor,
    items: Iterable[Item],
    batch_size: int,
    labels: Mapping[str, str],
    *,
    thumbnails: bool,
) -> Iterator[Row]:
    """A row of `schema_of` for each image; `labels` are the classes of paths, as far as they are known."""
    waiting: deque[Item] = deque()

    def images() -> Iterator[ImageInput]:
        for name, content in items:
            waiting.append((name, content))
            yield (name or b"") if content is None else content

    for path, features, error in features_of(predictor, images(), batch_size):
        name, content = waiting.popleft()
        shown = path if name is None else Path(name)
        row: Row = {
            "path": shown and utf8_text(name_of(shown)),
            "error": NO_IMAGE if name is None and content is None else error and utf8_text(error),
            "label": labels.get(str(name)),
            "embedding": features,
        }
        if thumbnails:
            row["thumbnail"] = None if features is None else thumbnail(name, content, predictor.max_pixels)
        yield row


def thumbnail(name: str | None, content: bytes | None, max_pixels: int) -> bytes:
    """A small WebP of an image that could be read."""
    side = THUMBNAIL_SIDE
    decoded = decode_reduced(Path(name or "image"), (side, side), max_pixels=max_pixels, content=content)
    small, stream = decoded.image, io.BytesIO()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    small.save(stream, "webp", quality=THUMBNAIL_QUALITY)
    return stream.getvalue()


def write_embeddings(
    partition: Partition,
    predictor: Predictor,
    made: Made,
    root: Path,
    batch_size: int,
    labels: Mapping[str, str],
    *,
    thumbnails: bool,
) -> Written:
    """Write the features of a partition into its file; see `write_rows`."""
    schema = schema_of(made, thumbnails=thumbnails)

    def rows(items: Iterable[Item]) -> Iterator[Row]:
        return rows_of(predictor, items, batch_size, labels, thumbnails=thumbnails)

    def write(rows: Iterable[Row], stream: IO[bytes]) -> None:
        parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema), stream)

    return write_rows(partition, root, rows, write)

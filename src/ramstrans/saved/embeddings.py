"""Features of many images in Parquet files: which model they are of, and the index of a saved model.

A folder of `ramstrans embed` has files with the columns `path`, `error`, `label`, `embedding` (what the
classifier reads at each scale, one after the other) and, in an index, `thumbnail`. What they were made by
stands in each file.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramstrans.errors import ConfigError, DataError
from ramstrans.plain import to_plain, utf8_text

if TYPE_CHECKING:
    import pyarrow

    from ramstrans.models.methods.method import Method
    from ramstrans.saved.metadata import ModelMetadata

INDEX_FOLDER = "index"
"""In the folder of a model: features and thumbnails of its training images."""

MARK = b"ramstrans"
"""Key of a file's metadata under which `Made` is."""

AGAIN = "make it again with `ramstrans embed`"


@dataclass(frozen=True)
class Made:
    """What embeddings were made by; those of different models cannot be compared.

    Attributes:
        model: Digest of all that features depend on.
        num_scales: S.
        width: D, numbers per scale.
    """

    model: str
    num_scales: int
    width: int


def made_by(model: "Method", metadata: "ModelMetadata") -> Made:
    """What the features of a model, with the scales and the saliency that it has now, are made by."""
    from ramstrans.saved.model import weights_digest

    config = dataclasses.asdict(dataclasses.replace(metadata.model, weights=None))
    parts = [config, dataclasses.asdict(metadata.preprocessing), model.saliency_name]
    text = weights_digest(model.state_dict()) + json.dumps(to_plain(parts, "model"))
    digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
    return Made(digest, model.num_scales, model.encoder.num_features)


class Embeddings(NamedTuple):
    """Features of N images, by which they can be compared.

    Attributes:
        made: What they were made by.
        paths: The N files.
        labels: Their classes, None where one is not known.
        units: (N, S * D) float32 of length 1: the features of each scale made as long as each other, so that
            a product of two is the mean over scales of their cosines, see `unit`.
        thumbnails: N small WebP files; None if there are none.
    """

    made: Made
    paths: tuple[str, ...]
    labels: tuple[str | None, ...]
    units: NDArray[np.float32]
    thumbnails: tuple[bytes, ...] | None

    def of_class(self, name: str) -> NDArray[np.intp]:
        """Indices of the images of a class; its name as in tables, see `utf8_text`."""
        name = utf8_text(name)
        return np.flatnonzero([label == name for label in self.labels])


def unit(features: NDArray[np.floating], num_scales: int) -> NDArray[np.float32]:
    """Features (N, S * D) with those of each scale divided by their length, and by the root of S.

    >>> (unit(np.array([[3.0, 4.0, 0.0, 2.0]]), 2) * 2**0.5).round(1).astype(str).tolist()
    [['0.6', '0.8', '0.0', '1.0']]
    """
    parts = features.reshape(len(features), num_scales, -1).astype(np.float64)
    lengths = np.maximum(np.linalg.norm(parts, axis=2, keepdims=True), 1e-12)
    return np.asarray((parts / lengths / num_scales**0.5).reshape(len(features), -1), np.float32)


def schema_of(made: Made, *, thumbnails: bool) -> "pyarrow.Schema":
    """Names and types of the columns, with what they were made by."""
    import pyarrow

    vector = pyarrow.list_(pyarrow.float32(), made.num_scales * made.width)
    columns = [("path", pyarrow.string()), ("error", pyarrow.string()), ("label", pyarrow.string())]
    columns += [("embedding", vector), *([("thumbnail", pyarrow.binary())] if thumbnails else [])]
    return pyarrow.schema(columns, {MARK: json.dumps(made.__dict__).encode()})


def load_embeddings(place: Path, made: Made | None = None) -> Embeddings:
    """Read a Parquet file, or a folder, of `ramstrans embed`; rows with an error are left out.

    Args:
        place: The file or folder.
        made: Of the features that these are to be compared with; None: not checked.

    Raises:
        DataError: It does not exist, is damaged, or has no features.
        ConfigError: It is of another model.
    """
    import pyarrow
    from pyarrow import parquet

    if (place / "_partitions.json").is_file() and not (place / "_SUCCESS").is_file():
        raise DataError(f"{place} is not finished; run the command that began it again, it goes on there")
    files = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
    if not files or not files[0].is_file():
        raise DataError(f"{place} has no features; give a file or folder that `ramstrans embed` wrote")
    try:
        tables = [parquet.read_table(file) for file in files]
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{place} cannot be read ({error}); {AGAIN}") from error
    founds = {_made(table, file) for table, file in zip(tables, files, strict=True)}
    if len(founds) > 1:
        raise ConfigError(f"{place} has files of different models; give one of them, or {AGAIN}")
    (found,) = founds
    _check_made(found, made, place)
    table = pyarrow.concat_tables(tables).filter(pyarrow.compute.field("embedding").is_valid())
    if len(table) == 0:
        raise DataError(f"{place} has no image that could be read; {AGAIN} from others")
    values = table["embedding"].combine_chunks()
    vectors = np.concatenate([_vectors(chunk) for chunk in getattr(values, "chunks", [values])])
    return Embeddings(
        found,
        tuple(table["path"].to_pylist()),
        tuple(table["label"].to_pylist()),
        unit(vectors.reshape(len(table), -1), found.num_scales),
        tuple(table["thumbnail"].to_pylist()) if "thumbnail" in table.column_names else None,
    )


def load_index(folder: Path, made: Made) -> Embeddings | None:
    """Read the index beside a saved model; None if it has none.

    Raises:
        DataError: It is damaged.
        ConfigError: It is of another model than the one beside it.
    """
    place = folder / INDEX_FOLDER
    return load_embeddings(place, made) if place.is_dir() else None


def _vectors(chunk: Any) -> NDArray[np.float32]:  # noqa: ANN401 - an array of pyarrow
    return np.asarray(chunk.flatten().to_numpy(zero_copy_only=False), np.float32)


def _made(table: Any, file: Path) -> Made:  # noqa: ANN401 - a table of pyarrow
    """What a table was made by.

    Raises:
        DataError: It does not say so.
    """
    try:
        return Made(**json.loads((table.schema.metadata or {})[MARK]))
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{file} does not say which model its features are of; give a file of `ramstrans embed`"
        ) from error


def _check_made(found: Made, wanted: Made | None, place: Path) -> None:
    """Raise ConfigError unless features can be compared."""
    if wanted is None or found == wanted:
        return
    sizes = [f"{made.num_scales} x {made.width}" for made in (found, wanted)]
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"{place} has {sizes[0]} numbers per image (scales x width), and this model gives {sizes[1]}; "
            f"give --num_scales as when it was made, or {AGAIN}"
        )
    raise ConfigError(f"{place} is of another model than this one; {AGAIN}, with --overwrite true")


def nearest(
    bank: NDArray[np.floating], queries: NDArray[np.floating], count: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """(M, k) indices of the nearest of N rows, nearest first, and their cosines; k = min(count, N).

    Args:
        bank: (N, F), of length 1.
        queries: (M, F), of length 1.
        count: How many.

    >>> bank = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> [array.tolist() for array in nearest(bank, np.array([[0.0, 1.0]]), 2)]
    [[[1, 2]], [[1.0, 0.800000011920929]]]
    """
    indices, cosines = [], []
    for start in range(0, len(queries), 1024):
        similar = queries[start : start + 1024] @ bank.T
        order = np.argsort(-similar, axis=1, kind="stable")[:, :count]
        indices.append(order)
        cosines.append(np.take_along_axis(similar, order, axis=1).astype(np.float32))
    if not indices:
        shape = 0, min(count, len(bank))
        return np.zeros(shape, np.intp), np.zeros(shape, np.float32)
    return np.concatenate(indices), np.concatenate(cosines)


def vote(
    indices: NDArray[np.integer],
    cosines: NDArray[np.floating],
    labels: Sequence[int],
    num_classes: int,
) -> NDArray[np.intp]:
    """(M,) classes by a vote of neighbours, each with weight exp(cosine / 0.07).

    The protocol of https://arxiv.org/abs/1805.01978, section 3.4; of equal classes the first wins.

    Args:
        indices: (M, k), from `nearest`.
        cosines: (M, k).
        labels: N classes of what was searched.
        num_classes: C.

    >>> vote(np.array([[0, 1, 2]]), np.array([[0.9, 0.8, 0.8]]), [1, 0, 0], 2)  # e^12.9 against 2 e^11.4
    array([1])
    """
    votes = np.zeros((len(indices), num_classes))
    rows = np.broadcast_to(np.arange(len(indices))[:, None], indices.shape)
    np.add.at(votes, (rows, np.asarray(labels)[indices]), np.exp((cosines - 1) / TEMPERATURE))
    return np.asarray(votes.argmax(axis=1))


TEMPERATURE = 0.07
"""Of votes."""

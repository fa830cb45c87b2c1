"""`BatchPredictor`: columns in, columns out, for Ray Data, Daft, Spark and whatever maps over batches."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from ramstrans.errors import UsageError
from ramstrans.options import Precision

if TYPE_CHECKING:  # heavy, and only needed in the process that predicts
    import pyarrow

    from ramstrans.inference.predictor import Predictor
    from ramstrans.saved.metadata import ModelMetadata

_loaded: dict[tuple[Any, ...], "Predictor"] = {}
_loading = Lock()

NO_IMAGE = "neither a path nor bytes"


class BatchPredictor:
    """Predicts a batch, a dict of columns; it may be pickled, and loads its model once per process.

    Args:
        run: Run folder, any saved model, or `hf://user/name[@revision]`; where the workers see it.
        top_k: Classes per image; fewer if the model has fewer.
        batch_size: Images per pass of the model.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: None: as the model was trained, else `fp32`.
        early_exit: See `Predictor`.
        num_scales: Use the first so many of the scales that were trained; None: all.
        rank_confidence: See `Predictor.load`.
        priors: File of priors without conditions, where the workers see it.

    Example:
        predictor = BatchPredictor("runs/mine")
        predictor({"path": ["a.jpg", "b.jpg"]})["label_1"]
        ray.data.read_parquet("photographs").map_batches(predictor)
    """

    def __init__(
        self,
        run: Path | str,
        top_k: int = 5,
        *,
        batch_size: int = 32,
        device: str = "auto",
        precision: Precision | None = None,
        early_exit: float | Literal["auto"] | None = None,
        num_scales: int | None = None,
        rank_confidence: float | None = None,
        priors: Path | str | None = None,
    ) -> None:
        self.run, self.top_k, self.batch_size = str(run), top_k, batch_size
        self.device = device
        self._options: dict[str, Any] = {
            "device": device,
            "precision": precision,
            "early_exit": early_exit,
            "num_scales": num_scales,
            "rank_confidence": rank_confidence,
            "priors": priors,
        }

    @property
    def predictor(self) -> "Predictor":
        """The model, which this process shares; loaded at its first use.

        Raises:
            RamsTransError: As `Predictor.load`.
            UsageError: The priors have conditions.
        """
        from ramstrans.inference.predictor import Predictor

        key = (self.run, *self._options.values())
        with _loading:
            if key not in _loaded:
                predictor = Predictor.load(self.run, **self._options)
                if predictor.priors is not None:
                    predictor.priors.check_no_conditions("a batch")
                _loaded[key] = predictor
            return _loaded[key]

    @cached_property
    def metadata(self) -> "ModelMetadata":
        """What the model was saved with; read without loading the model."""
        from ramstrans.saved.metadata import load_metadata

        return load_metadata(self.run)

    @property
    def num_labels(self) -> int:
        """Classes per image."""
        return min(self.top_k, len(self.metadata.class_names))

    @property
    def multi_label(self) -> bool:
        """Whether images may have several labels."""
        return self.metadata.model.multi_label

    @property
    def schema(self) -> "pyarrow.Schema":
        """Names and types of the columns that it gives, those of `predict --output FILE.parquet`."""
        from ramstrans.inference.writers import parquet_schema

        return parquet_schema(self.num_labels, multi_label=self.multi_label)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Predict a batch of N images; one that cannot be read has its `error`.

        Args:
            batch: Columns of N values: `path`, of files; or `bytes`, the content of files, beside which
                `path` is only a name. Others are not used.

        Returns:
            The columns of `schema`, with N values each; None where there is no value.

        Raises:
            UsageError: There is neither column.
        """
        rows = list(self.rows(items_of(batch)))
        return {name: [row.get(name) for row in rows] for name in self.schema.names}

    def rows(self, items: Iterable[tuple[str | None, bytes | None]]) -> Iterator[dict[str, Any]]:
        """Predict any number of images, in order and in bounded memory; one row of `schema` for each.

        Args:
            items: Path and bytes of each; without bytes the file is read.
        """
        from ramstrans.inference.writers import to_row

        waiting: deque[tuple[str | None, bool]] = deque()

        def images() -> Iterator[str | bytes]:
            for name, content in items:
                waiting.append((name, content is None))
                yield (name or b"") if content is None else content

        for prediction in self.predictor.stream(images(), self.num_labels, self.batch_size):
            name, has_no_bytes = waiting.popleft()
            if prediction.path is None:
                error = NO_IMAGE if has_no_bytes else prediction.error
                prediction = prediction._replace(path=Path(name) if name else None, error=error)  # noqa: PLW2901
            yield to_row(prediction, self.num_labels)


def items_of(batch: Mapping[str, Any]) -> list[tuple[str | None, bytes | None]]:
    """Path and bytes of each row of a batch.

    Raises:
        UsageError: It has neither column.

    >>> items_of({"path": ["a.jpg", "b.jpg"]})
    [('a.jpg', None), ('b.jpg', None)]
    """
    columns = {name: list(_values(batch[name])) for name in ("path", "bytes") if name in batch}
    if not columns:
        found = ", ".join(map(str, batch)) or "none"
        raise UsageError(f"a batch has the columns {found}; give path (of files) or bytes (their content)")
    empty = [None] * len(next(iter(columns.values())))
    paths, contents = columns.get("path", empty), columns.get("bytes", empty)
    return [
        (None if _is_missing(path) else str(path), None if _is_missing(content) else bytes(content))
        for path, content in zip(paths, contents, strict=True)
    ]


def _is_missing(value: Any) -> bool:  # noqa: ANN401 - a cell of any table
    """Whether a cell has no value: None, or NaN or NA of pandas."""
    is_na = type(value).__name__ == "NAType"  # pandas is not needed here
    return value is None or is_na or (isinstance(value, float) and math.isnan(value))


def _values(column: Any) -> Iterable[Any]:  # noqa: ANN401 - a list, or an array of NumPy, pandas or Arrow
    values: Iterable[Any] = column.to_pylist() if hasattr(column, "to_pylist") else column
    return values

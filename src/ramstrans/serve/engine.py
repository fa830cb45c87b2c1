"""What a server needs of a model: one interface for run folders, and for exported ones without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ramstrans.calibration.fitted import promises
from ramstrans.data.geometry import Geometry
from ramstrans.data.image_priors import ImagePriors
from ramstrans.errors import UsageError
from ramstrans.export.runner import format_of
from ramstrans.export.standalone import Standalone
from ramstrans.inference.prediction import Prediction

IN_MEMORY = Path("image")
"""Stands for the file of an image that came by HTTP, in errors, which are not shown."""

View = tuple[float, float, float, float]
"""What the first scale sees, `(x0, y0, x1, y1)` in pixels of the original image: not clipped, so beyond its
edges where the image was padded."""


class Answer(NamedTuple):
    """The answer for one image.

    Attributes:
        prediction: Without a path.
        saliency: (h, w) float32, non-negative, of the first scale; None if an exported graph has none.
        view: What the saliency lies over.
    """

    prediction: Prediction
    saliency: NDArray[np.float32] | None
    view: View


class Engine(Protocol):
    """A model that answers for the bytes of image files."""

    max_pixels: int

    @property
    def priors(self) -> ImagePriors | None:
        """The priors for all images, if there are some."""

    def about(self) -> dict[str, Any]:
        """What the model is, as plain values.

        Among them are `classes`, their names, `multi_label`, whether an image may have several, and
        `promises`, those of its calibration.
        """

    def read(self, content: bytes) -> Any:  # noqa: ANN401 - what `answer` takes
        """Decode the bytes of a file; called by several threads.

        Raises:
            UnreadableImageError: They are not an image, or one of more than `max_pixels`.
        """

    def answer(self, examples: Sequence[Any], top_k: int) -> list[Answer]:
        """Answer for images that were read, as one batch; called by one thread."""

    def contrast(self, content: bytes, against: str) -> dict[str, Any]:
        """Why the answer for the bytes of an image and not another class; called by that thread.

        Raises:
            UnreadableImageError: They are not an image.
            RamsTransError: It cannot be said; the message says why.
        """


class ExportedEngine:
    """A folder of `ramstrans export`; its answers are those of its predict.py."""

    def __init__(
        self, folder: Path, *, rank_confidence: float | None = None, priors: Path | None = None
    ) -> None:
        self._exported = Standalone(  # photographs are decoded meanwhile
            folder, shares_cores=True, rank_confidence=rank_confidence, priors=priors
        )
        self._about = {
            "kind": "exported",
            "format": format_of(folder),
            "classes": list(self._exported.class_names),
            "multi_label": self._exported.thresholds is not None,
            "promises": promises(self._exported.calibration),
        }

    @property
    def max_pixels(self) -> int:
        """Largest images that are read."""
        return self._exported.max_pixels

    @max_pixels.setter
    def max_pixels(self, value: int) -> None:
        self._exported.max_pixels = value

    @property
    def priors(self) -> ImagePriors | None:
        """See `Engine`."""
        return self._exported.priors

    def about(self) -> dict[str, Any]:
        """See `Engine`."""
        return dict(self._about)

    def read(self, content: bytes) -> Any:  # noqa: ANN401 - see `Engine`
        """See `Engine`."""
        return self._exported.read(IN_MEMORY, content)

    def answer(self, examples: Sequence[Any], top_k: int) -> list[Answer]:
        """See `Engine`."""
        outputs = self._exported.graph(np.stack([example.pixels for example in examples]))
        predictions = self._exported.predictions(outputs, examples, [None] * len(examples), top_k)
        saliency = outputs.get("saliency")
        return [
            Answer(
                prediction,
                None if saliency is None else saliency[row],
                view_of(example.geometry, example.pixels.shape[1:]),
            )
            for row, (prediction, example) in enumerate(zip(predictions, examples, strict=True))
        ]

    def contrast(self, content: bytes, against: str) -> dict[str, Any]:  # noqa: ARG002 - see `Engine`
        """See `Engine`: no graph has gradients."""
        raise UsageError("against needs gradients, and an exported model has none; serve the run folder")


def view_of(geometry: Geometry, size: tuple[int, ...]) -> View:
    """Where the whole of a view of `(height, width)` pixels lies in the original image.

    >>> view_of(Geometry((0.5, 0.5), (-10.0, 0.0), 60.0), (40, 60))
    (-20.0, 0.0, 100.0, 80.0)
    """
    height, width = size
    x0, y0, x1, y1 = geometry.to_original(np.array([0.0, 0.0, width, height])).tolist()
    return x0, y0, x1, y1

"""A run folder, or any saved model, as an engine: by PyTorch."""

from collections.abc import Sequence
from typing import Any

from ramstrans.calibration.fitted import promises
from ramstrans.data.image_priors import ImagePriors
from ramstrans.inference.contrast import compare
from ramstrans.inference.predictor import Predictor
from ramstrans.serve.drawing import draw_contrast
from ramstrans.serve.engine import Answer, view_of


class RunEngine:
    """A predictor as an engine; its answers are those of `ramstrans predict`."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._about = {
            "kind": "run",
            "backbone": predictor.metadata.model.backbone,
            "method": predictor.metadata.model.method,
            "device": str(predictor.model.device),
            **predictor.fingerprint(),  # reads all weights
            "classes": list(predictor.class_names),
            "multi_label": predictor.metadata.model.multi_label,
            "promises": promises(predictor.calibration),
        }

    @property
    def max_pixels(self) -> int:
        """Largest images that are read."""
        return self._predictor.max_pixels

    @max_pixels.setter
    def max_pixels(self, value: int) -> None:
        self._predictor.max_pixels = value

    @property
    def priors(self) -> ImagePriors | None:
        """See `Engine`."""
        return self._predictor.priors

    def about(self) -> dict[str, Any]:
        """See `Engine`."""
        return self._about

    def read(self, content: bytes) -> Any:  # noqa: ANN401 - see `Engine`
        """See `Engine`."""
        return self._predictor.read(content)

    def answer(self, examples: Sequence[Any], top_k: int) -> list[Answer]:
        """See `Engine`."""
        batch, output = self._predictor.forward(examples)
        predictions = self._predictor.predictions(batch, output, [None] * len(examples), top_k)
        saliency = output.scales[0].saliency
        maps = [None] * len(examples) if saliency is None else saliency.float().cpu().numpy()
        size = tuple(batch.images.shape[2:])
        return [
            Answer(prediction, one, view_of(geometry, size))
            for prediction, one, geometry in zip(predictions, maps, batch.geometries, strict=True)
        ]

    def contrast(self, content: bytes, against: str) -> dict[str, Any]:
        """Why the answer for the bytes of an image and not another class, as plain values and a PNG.

        The nearest training photographs stay out: whoever asks a server need not see them.

        Raises:
            UnreadableImageError: They are not an image.
            RamsTransError: There is no such class, or the model cannot be explained so.
        """
        found = compare(self._predictor, content, against)
        values = found.to_json()
        del values["nearest"]
        views = found.explanation.views
        pictures = [(crop, one.map) for crop, one in zip(views.crops, found.scales, strict=True)]
        values["differences"] = [round(one.difference, 6) for one in found.scales]
        return values | {"picture": draw_contrast(pictures)}

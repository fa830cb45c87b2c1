"""A run folder, or any saved model, as an engine: by PyTorch."""

from collections.abc import Sequence
from typing import Any

from ramstrans.inference.predictor import Predictor
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
        }

    @property
    def max_pixels(self) -> int:
        """Largest images that are read."""
        return self._predictor.max_pixels

    @max_pixels.setter
    def max_pixels(self, value: int) -> None:
        self._predictor.max_pixels = value

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

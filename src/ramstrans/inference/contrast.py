"""Why the answer and not another class: where the difference comes from, and what it was trained on."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ramstrans.errors import UsageError
from ramstrans.evaluation.views import scale_views
from ramstrans.inference.in_memory import ImageInput, path_of
from ramstrans.inference.inputs import read_input
from ramstrans.inference.neighbors import Neighbor, neighbors_of
from ramstrans.inference.postprocess import Explanation
from ramstrans.inference.predictor import Predictor
from ramstrans.models.contrast import contrasts
from ramstrans.plain import utf8_text
from ramstrans.saved.embeddings import Embeddings

RUNNER_UP = "runner_up"
"""Stands for the second most probable class of each image."""

NUM_NEAREST = 3
"""Training photographs of each of the two classes."""


class ScaleContrast(NamedTuple):
    """Where the difference of two logits of one scale comes from.

    Attributes:
        map: (h, w) float32 over the locations of what the scale saw: positive where they speak for the
            answer, negative for the other class.
        difference: Logit of the answer minus that of the other class.
    """

    map: NDArray[np.float32]
    difference: float


class Comparison(NamedTuple):
    """The answer for one image beside another class.

    Attributes:
        explanation: The prediction, and what each scale saw.
        answer: The most probable class.
        against: The other one.
        probabilities: Of both, as the prediction has them.
        scales: For each scale.
        nearest: The nearest training photographs of both; None without an index.
    """

    explanation: Explanation
    answer: str
    against: str
    probabilities: tuple[float, float]
    scales: tuple[ScaleContrast, ...]
    nearest: tuple[list[Neighbor], list[Neighbor]] | None

    def to_json(self) -> dict[str, Any]:
        """The two classes as plain values; the maps are with the scales, see `explanation_to_json`."""
        nearest = None
        if self.nearest is not None:
            nearest = {
                name: [one.to_json() for one in found]
                for name, found in zip(("answer", "class"), self.nearest, strict=True)
            }
        return {
            "answer": utf8_text(self.answer),
            "class": utf8_text(self.against),
            "probabilities": [round(one, 6) for one in self.probabilities],
            "nearest": nearest,
        }


def check_class(class_names: Sequence[str], against: str) -> None:
    """Raise UsageError unless a class is one of the model's, or `runner_up`."""
    if against == RUNNER_UP or against in class_names:
        return
    by_lower = {name.lower(): name for name in class_names}
    near = [by_lower[name] for name in difflib.get_close_matches(against.lower(), by_lower, 1, 0.5)]
    near = near or [name for name in class_names if against.lower() in name.lower()][:1]
    hint = f"did you mean '{near[0]}'?" if near else f"they begin with '{class_names[0]}'"
    raise UsageError(
        f"against is '{against}', which is not one of the {len(class_names)} classes of this model: "
        f"{hint}; or give runner_up"
    )


def compare(
    predictor: Predictor,
    image: ImageInput,
    against: str = RUNNER_UP,
    embeddings: Embeddings | None = None,
) -> Comparison:
    """Compare the answer for one image with another class; with the runner-up where the answer is that class.

    Args:
        predictor: Without early exit.
        image: The image.
        against: The other class, or `runner_up`.
        embeddings: The index of the model, for the nearest training photographs.

    Raises:
        UnreadableImageError: It cannot be decoded.
        UsageError: There is no such class.
        ConfigError: The model cannot be explained so, see `contrasts`.
    """
    check_class(predictor.class_names, against)
    model, metadata = predictor.model, predictor.metadata
    resized = read_input(image, metadata.preprocessing, predictor.max_pixels)
    batch, output, (views,) = scale_views(model, metadata, [resized], predictor.precision)
    path = path_of(image)
    explanation = predictor.explained(batch, output, views, path, top_k=5)
    (ranked,) = predictor.predictions(batch, output, [path], len(predictor.class_names))
    answer, runner_up = ranked.labels[:2]
    other = runner_up if against in (RUNNER_UP, answer) else against
    of_class: Mapping[str, float] = dict(zip(ranked.labels, ranked.probabilities, strict=True))
    labels = [torch.tensor([predictor.class_names.index(name)]) for name in (answer, other)]
    found = contrasts(model, *model.normalize(batch.images, batch.high_res), output, *labels)
    nearest: tuple[list[Neighbor], list[Neighbor]] | None = None
    if embeddings is not None:
        features = torch.cat([scale.feature[0].float() for scale in output.scales]).cpu().numpy()
        nearest = (
            neighbors_of(embeddings, features, NUM_NEAREST, path, answer),
            neighbors_of(embeddings, features, NUM_NEAREST, path, other),
        )
    return Comparison(
        explanation,
        answer,
        other,
        (of_class[answer], of_class[other]),
        tuple(ScaleContrast(one.maps[0].cpu().numpy(), float(one.difference[0])) for one in found),
        nearest,
    )

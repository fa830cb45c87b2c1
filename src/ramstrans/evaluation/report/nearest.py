"""The training photographs that a mistake is most like: of the answered class, and of the true one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ramstrans.evaluation.predict import Predictions
from ramstrans.evaluation.report.html import data_uri
from ramstrans.saved.embeddings import Embeddings, nearest, unit


class Near(NamedTuple):
    """The nearest training photograph of a class: its name, the cosine of both features, and a data URI."""

    label: str
    cosine: float
    uri: str


def nearest_pictures(
    index: Embeddings | None,
    predictions: Predictions,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    chosen: Sequence[int],
) -> dict[int, list[Near]]:
    """For each of some images the nearest training photograph of the answered class, and of the true one.

    Args:
        index: Of the model; None: there are none.
        predictions: For N images, with their features.
        probabilities: (N, C) of all scales together.
        class_names: The C names, in label order.
        chosen: Indices of images.
    """
    if index is None or index.thumbnails is None or predictions.features is None or not len(chosen):
        return {}
    features = predictions.features[:, chosen].transpose(1, 0, 2).reshape(len(chosen), -1)
    units = unit(features, len(predictions.features))
    found: dict[int, list[Near]] = {}
    for image, query in zip(chosen, units, strict=True):
        labels = dict.fromkeys([int(probabilities[image].argmax()), int(predictions.labels[image])])
        own = str(predictions.records[image].path.absolute())
        found[image] = []
        for name in (class_names[label] for label in labels):
            among = np.array([row for row in index.of_class(name).tolist() if index.paths[row] != own], int)
            if len(among):
                rows, cosines = nearest(index.units[among], query[None], 1)
                uri = data_uri(index.thumbnails[among[rows[0, 0]]])
                found[image].append(Near(name, float(cosines[0, 0]), uri))
    return found

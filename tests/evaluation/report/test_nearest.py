"""Training photographs beside mistakes."""

import numpy as np

from ramstrans.evaluation.report.nearest import nearest_pictures
from ramstrans.saved.embeddings import Embeddings, Made, unit
from tests.evaluation.builders import make_predictions


def test_the_nearest_of_the_answered_and_of_the_true_class_but_not_the_image_itself():
    predictions = make_predictions(num_scales=2, num_images=3, num_classes=3)
    predictions = predictions._replace(
        labels=np.array([0, 1, 2]), features=np.random.default_rng(0).normal(size=(2, 3, 5))
    )
    probabilities = np.array([[0.1, 0.9, 0.0], [0.1, 0.8, 0.1], [0.9, 0.1, 0.0]])
    own = predictions.features.transpose(1, 0, 2).reshape(3, -1)
    others = own + 0.01 * np.random.default_rng(1).normal(size=own.shape)
    paths = [*(str(record.path.absolute()) for record in predictions.records), "x", "y", "z"]
    labels = ("crow", "jay", "crow", "crow", "jay", "owl")
    thumbnails = tuple(f"{name}".encode() for name in "abcdef")
    index = Embeddings(
        Made("", 2, 5), tuple(paths), labels, unit(np.concatenate([own, others]), 2), thumbnails
    )
    found = nearest_pictures(index, predictions, probabilities, ("crow", "jay", "owl"), [0, 1, 2])
    # image 0 is a crow, called a jay; its own photograph is in the index, and so is a copy of it, x
    assert [near.label for near in found[0]] == ["jay", "crow"]
    assert found[0][1].uri.endswith("ZA==")  # "d": of x, not "a" of itself
    assert found[0][1].cosine > 0.99
    assert [near.label for near in found[1]] == ["jay"]  # right: once
    assert [near.label for near in found[2]] == ["crow", "owl"]
    no_pictures = index._replace(thumbnails=None)
    assert nearest_pictures(no_pictures, predictions, probabilities, (), [0]) == {}
    assert nearest_pictures(None, predictions, probabilities, (), [0]) == {}

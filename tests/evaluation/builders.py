"""What the tests of this folder share: made-up predictions, and the pixels of figures."""

from pathlib import Path

import numpy as np
from PIL import Image

from ramstrans.data.records import Part, Record
from ramstrans.evaluation.predict import Predictions

WIDTH, HEIGHT = 31, 23


def make_predictions(num_scales=2, num_images=13, num_classes=7, *, annotated=True, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_images)
    probabilities = rng.dirichlet(np.ones(num_classes), (num_scales, num_images)).astype(np.float32)
    corner = rng.integers(0, 11, (num_scales, num_images, 2))
    boxes = np.concatenate([corner, corner + 7], axis=-1).astype(np.float32)
    found = np.ones((num_scales, num_images), dtype=bool)
    box, parts = ((3.0, 5.0, 17.0, 19.0), (Part("beak", 5, 7),)) if annotated else (None, ())
    records = tuple(
        Record(Path(f"{i}.jpg"), int(label), "test", box, parts) for i, label in enumerate(labels)
    )
    sizes = np.tile([WIDTH, HEIGHT], (num_images, 1))
    return Predictions(probabilities, labels, boxes, found, sizes, records)


def names(predictions):
    return [f"bird {label}" for label in range(predictions.probabilities.shape[2])]


def pixels(path):
    """(H, W, 3), the pixels of a PNG file."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))

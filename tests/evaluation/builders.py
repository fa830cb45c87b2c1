"""What the tests of this folder share: made-up predictions, pages of them, and what to compare of results."""

from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import numpy as np
from PIL import Image

from ramstrans.data.records import Part, Record
from ramstrans.evaluation.predict import Predictions
from ramstrans.evaluation.report.build import build_report
from ramstrans.evaluation.report.page import report_page
from ramstrans.evaluation.views import ScaleViews

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


class FakeSource:
    """Stands in for `photographs.Source`: noise, which compresses badly, and views of two scales."""

    model = SimpleNamespace(num_looks=2)
    training = None

    def photograph(self, index, side):
        return noise(index, (max(side, 40), max(side, 30)))

    def views(self, indices):
        for index in indices:
            crops, boxes = (
                (noise(index, (40, 30)), noise(-index - 1, (24, 24))),
                ((0, 0, 31, 23), (3, 5, 10, 12)),
            )
            yield index, ScaleViews(crops[0], (WIDTH, HEIGHT), crops, boxes, (np.eye(3), np.ones((3, 3))))


def noise(seed, size):
    values = np.random.default_rng(abs(seed)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def page_of(predictions, class_names=None, *, figures=MappingProxyType({}), source=None, **extra):
    """The report of made-up predictions as HTML."""
    class_names = class_names or names(predictions)
    report = build_report(predictions, class_names, extra=extra)
    return report_page(report, predictions, predictions.fused, class_names, figures, source or FakeSource())


METRICS = (
    "num_images",
    "scales",
    "fused",
    "zoom_gain",
    "regions",
    "regions_by_scale",
    "classes",
    "confused",
)


def metrics(report):
    return {key: report[key] for key in METRICS}


def assert_says(text, *phrases):
    """All phrases are in the text; the first that is not is named."""
    for phrase in phrases:
        assert phrase in text, phrase

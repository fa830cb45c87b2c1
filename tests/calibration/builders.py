"""A calibration of two scales and three classes, and what a model may give."""

import numpy as np
import pytest

from ramstrans.calibration.fitted import Calibration, FusedRule, SetRule, UnknownRule

ENERGY = UnknownRule("energy", (1,), -2.0, 0.05, "classes left out", 90.0, 40.0)
KNN = UnknownRule("knn", (1, 2), 0.5, 0.05, "name", None, None)
SETS = SetRule("lac", 0.95, per_class=False, lac=(0.8,), aps=(0.9,), raps=(0.95,))


def make_calibration(unknown=ENERGY, sets=SETS, temperatures=(2.0, 0.5), **fields):
    rules = tuple(FusedRule(temperature, unknown, sets) for temperature in temperatures)
    return Calibration("val", 60, "abc", (1.5, 1.25), rules, **fields)


def make_arrays(width=4, num_images=7, scales=(1, 2)):
    rng = np.random.default_rng(0)
    return {
        f"scale_{scale}.neighbors": rng.normal(0, 1, (num_images, width)).astype(np.float32)
        for scale in scales
    }


LOGITS = np.array([[[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]], [[9.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])

FUSED = np.array([[0.64, 0.32, 0.04], [0.1, 0.2, 0.7]], np.float32)


def known_classifier(num_classes):
    """A fitted classifier of scikit-learn's kind, whose probabilities are its input."""
    base = pytest.importorskip("sklearn.base", reason="pip install scikit-learn")

    class Known(base.ClassifierMixin, base.BaseEstimator):
        classes_ = np.arange(num_classes)

        def fit(self, *_):
            return self

        def predict_proba(self, probabilities):
            return np.asarray(probabilities)

        def predict(self, probabilities):
            return np.asarray(probabilities).argmax(axis=1)

        def __sklearn_is_fitted__(self):
            return True

    return Known()

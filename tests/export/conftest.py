"""One model, exported once: a graph takes half a minute."""

import os
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from filelock import FileLock

from ramstrans.calibration.fitted import (
    Calibration,
    FusedRule,
    SetRule,
    UnknownRule,
    save_calibration,
)
from ramstrans.calibration.taxonomy import Taxonomy
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.records import Record
from ramstrans.saved.model import load_model, weights_digest
from tests.inference.builders import draw, make_folder


class Exported(NamedTuple):
    """A model's folder, its predictor, the folder of its export as ONNX, and how that was checked."""

    saved: Path
    predictor: object
    folder: Path
    check: object


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Large, small, upright, on its side, and one that is damaged."""
    folder = tmp_path_factory.mktemp("photographs")
    paths = [draw(folder / f"{n}.jpg", 300 + 40 * n, 260 - 20 * n, seed=n) for n in range(4)]
    paths.append(draw(folder / "small.png", 70, 90, seed=7))
    (folder / "broken.jpg").write_bytes(paths[0].read_bytes()[:200])
    return [*paths, folder / "broken.jpg"]


@pytest.fixture(scope="session")
def exported(tmp_path_factory, photographs):
    """A tiny model of two scales, calibrated, exported as ONNX: by one of the tests' processes, for all."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    from ramstrans.export.folder import export_folder
    from ramstrans.inference.predictor import Predictor

    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "export"
    saved, check = root / "run", root / "check.pickle"
    with FileLock(root.with_suffix(".lock")):
        is_first = not root.exists()
        if is_first:
            make_folder(saved, zoom_source="full", preprocessing=Preprocessing(61, (53, 37)))
            calibrate(saved, photographs)
        predictor = Predictor.load(saved, "cpu", "fp32")
        if is_first:
            check.write_bytes(pickle.dumps(export_folder(predictor, root / "out", "onnx", photographs)))
    return Exported(saved, predictor, root / "out", pickle.loads(check.read_bytes()))


def calibrate(saved, photographs):
    """Give a model of width 24 a calibration by which one half of the photographs is unknown."""
    from ramstrans.inference.predictor import Predictor

    rng = np.random.default_rng(0)
    shapes = {"origin": (24,), "residual": (24, 12), "alpha": (1,)}
    arrays = {
        f"scale_{scale}.{name}": rng.normal(1, 0.2, shape).astype(np.float32)
        for scale in (1, 2)
        for name, shape in shapes.items()
    }
    taxonomy = Taxonomy(("species", "family"), (("crows", "others"),), ((0, 1, 1, 0, 1, 0, 1),), 0.51)
    threshold = limit = 0.5
    for _ in range(2):  # the second time with limits between what the photographs have
        sets = SetRule("lac", 0.95, per_class=False, lac=(limit,), aps=(0.9,), raps=(0.9,))
        unknown = UnknownRule("vim", (1, 2), threshold, 0.05, "name", None, None)
        rules = tuple(FusedRule(temperature, unknown, sets) for temperature in (2.0, 1.7))
        digest = weights_digest(load_model(saved, "cpu").model.state_dict())
        fields = {"arrays": arrays, "taxonomy": taxonomy}
        save_calibration(saved, Calibration("val", 60, digest, (1.5, 1.25), rules, **fields))
        found = Predictor.load(saved, "cpu", "fp32")(photographs)
        scores = sorted(one.unknown_score for one in found if one.error is None)
        threshold = (scores[1] + scores[2]) / 2
        values = sorted(value for one in found for value in one.probabilities)
        limit = 1 - (values[-7] + values[-8]) / 2


@pytest.fixture(scope="session")
def labelled(exported, tmp_path_factory):
    """Photographs with the classes that the model gives them, as records."""
    folder = tmp_path_factory.mktemp("labelled")
    paths = [draw(folder / f"{n}.png", 64 + n, 61, seed=n) for n in range(24)]
    names = exported.predictor.class_names
    found = exported.predictor(paths)
    return tuple(
        Record(path, names.index(one.labels[0]), "val") for path, one in zip(paths, found, strict=True)
    )

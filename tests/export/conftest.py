"""One model, exported once: a graph takes half a minute."""

from pathlib import Path
from typing import NamedTuple

import pytest

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.records import Record
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
    """A tiny model of two scales, exported as ONNX."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    from ramstrans.export.folder import export_folder
    from ramstrans.inference.predictor import Predictor

    root = tmp_path_factory.mktemp("export")
    saved = make_folder(root / "run", zoom_source="full", preprocessing=Preprocessing(61, (53, 37)))
    predictor = Predictor.load(saved, "cpu", "fp32")
    check = export_folder(predictor, root / "out", "onnx", photographs)
    return Exported(saved, predictor, root / "out", check)


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

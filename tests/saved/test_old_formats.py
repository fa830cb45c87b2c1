"""Model folders of earlier formats give the same answers; `format_2` was written before format 3."""

import json
import shutil
from pathlib import Path

import pytest

from ramstrans import Predictor
from ramstrans.inference.writers import to_json
from ramstrans.saved.model import load_metadata, save_metadata

FOLDER = Path(__file__).parent / "format_2"
RENAMED = {"found": "has_region"}


def as_format_1(folder):
    """What format 1 had not: `early_exit`, `model.region_size`."""
    path = folder / "config.json"
    values = json.loads(path.read_text())
    del values["early_exit"], values["model"]["region_size"]
    path.write_text(json.dumps(values | {"format_version": 1}))


@pytest.fixture(params=[1, 2])
def folder(request, tmp_path):
    """A copy of the folder in that format."""
    copy = tmp_path / "model"
    shutil.copytree(FOLDER, copy)
    if request.param == 1:
        as_format_1(copy)
    return copy


def test_the_answer_is_the_same(folder):
    expected = json.loads((FOLDER / "prediction.json").read_text())
    answer = to_json(Predictor.load(folder, device="cpu")(folder / "photograph.png"))
    assert answer["labels"] == expected["labels"]
    assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
    for scale, before in zip(answer["scales"], expected["scales"], strict=True):
        old = {RENAMED.get(key, key): value for key, value in before.items()}
        assert scale.keys() == old.keys()
        assert scale["labels"] == old["labels"]
        assert scale["has_region"] == old["has_region"]
        assert scale["probabilities"] == pytest.approx(old["probabilities"], abs=1e-5)
        assert scale["box"] == (None if old["box"] is None else pytest.approx(old["box"], abs=0.01))


def test_early_exit_is_kept(folder):
    early_exit = load_metadata(folder).early_exit
    assert early_exit is None or (early_exit.confidence, early_exit.mean_scales_used) == (0.5, 1.25)


def test_a_folder_written_again_is_of_the_new_format(folder):
    metadata = load_metadata(folder)
    save_metadata(folder, metadata)
    assert load_metadata(folder) == metadata
    assert json.loads((folder / "config.json").read_text())["format_version"] == 7

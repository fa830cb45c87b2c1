import json

import numpy as np
import pytest
from PIL import Image

from ramstrans.errors import OutputError, UnreadableImageError, UsageError
from ramstrans.inference.explain import explain, plot_explanation
from ramstrans.inference.predictor import Predictor
from tests.inference.builders import NAMES, draw, make_folder


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return Predictor.load(make_folder(tmp_path_factory.mktemp("run")), "cpu")


@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_values_and_picture(tmp_path, num_scales):
    predictor = Predictor.load(make_folder(tmp_path / "run", num_scales=num_scales), "cpu")
    photograph = draw(tmp_path / "wren $1.jpg", 131, 97)
    values = explain(predictor, photograph, tmp_path / "new" / "why.png", tmp_path / "why.json")
    assert json.loads((tmp_path / "why.json").read_text(encoding="utf-8")) == values
    assert len(values["scales"]) == num_scales
    assert (values["width"], values["height"]) == (131, 97)
    prediction = predictor.explain(photograph).prediction
    assert values["labels"] == list(prediction.labels)
    for scale, said in zip(values["scales"], prediction.scales, strict=True):
        assert scale["labels"] == list(said.labels)
        assert scale["box"] == pytest.approx(said.box, abs=0.01)
        assert np.array(scale["saliency"]).shape == (3, 2)
        assert np.array(scale["saliency"]).min() >= 0
    for before, after in zip(values["scales"], values["scales"][1:], strict=False):
        assert after["crop_box"] == before["box"]
    with Image.open(tmp_path / "new" / "why.png") as picture:
        assert picture.height / picture.width == pytest.approx(3.1 * (num_scales + 1) / 10.5, abs=0.01)
        bytes_of_color = np.asarray(picture.convert("RGB")).astype(int)
    assert (np.ptp(bytes_of_color, axis=2) > 100).mean() > 0.01  # photographs and bars, not a blank page


def test_nothing_found_and_saliency_that_is_no_number(predictor, tmp_path):
    explanation = predictor.explain(draw(tmp_path / "x.png", 59, 211))
    hopeless = tuple(np.full_like(saliency, np.nan) for saliency in explanation.saliencies)
    scales = tuple(scale._replace(has_region=False) for scale in explanation.prediction.scales)
    prediction = explanation.prediction._replace(scales=scales, path=None)
    plot_explanation(explanation._replace(saliencies=hopeless, prediction=prediction), tmp_path / "why.png")
    assert (tmp_path / "why.png").is_file()


def test_two_classes(tmp_path):
    predictor = Predictor.load(make_folder(tmp_path / "run", names=NAMES[:2]), "cpu")
    values = explain(predictor, draw(tmp_path / "x.png", 71, 67), tmp_path / "why.png")
    assert len(values["labels"]) == 2


def test_what_cannot_be(predictor, tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(UnreadableImageError, match="empty"):
        explain(predictor, tmp_path / "empty.jpg", tmp_path / "why.png")
    photograph = draw(tmp_path / "x.png", 71, 67)
    with pytest.raises(UsageError, match=r"why\.pdf .* \.png"):
        explain(predictor, photograph, tmp_path / "why.pdf")
    with pytest.raises(OutputError, match="cannot be written"):
        explain(predictor, photograph, tmp_path / "empty.jpg" / "why.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.jpg", "x.png"]

import json

import numpy as np
import pytest
from PIL import Image

from ramstrans.errors import OutputError, UnreadableImageError
from ramstrans.evaluation.report import style
from ramstrans.inference.explain import explain, plot_explanation
from ramstrans.inference.predictor import Predictor
from tests.inference.builders import NAMES, draw, make_folder


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return Predictor.load(make_folder(tmp_path_factory.mktemp("run")), "cpu")


@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_values_and_picture(tmp_path, num_scales):
    predictor = Predictor.load(make_folder(tmp_path / "run", num_scales=num_scales), "cpu")
    image = draw(tmp_path / "wren $1.jpg", 131, 97)
    values = explain(predictor, image, tmp_path / "new" / "why.png")
    assert json.loads((tmp_path / "new" / "why.json").read_text(encoding="utf-8")) == values
    assert len(values["scales"]) == num_scales
    assert (values["width"], values["height"]) == (131, 97)
    prediction = predictor.explain(image).prediction
    assert values["labels"] == list(prediction.labels)
    for scale, expected in zip(values["scales"], prediction.scales, strict=True):
        assert scale["labels"] == list(expected.labels)
        if scale is values["scales"][-1]:
            assert scale["box"] is scale["has_region"] is None  # no scale sees its region
        else:
            assert scale["box"] == pytest.approx(expected.box, abs=0.01)
        assert np.array(scale["saliency"]).shape == (3, 2)
        assert np.array(scale["saliency"]).min() >= 0
    for before, after in zip(values["scales"], values["scales"][1:], strict=False):
        assert after["crop_box"] == before["box"]
    with Image.open(tmp_path / "new" / "why.png") as picture:
        assert picture.height / picture.width == pytest.approx(3.1 * (num_scales + 1) / 10.5, abs=0.01)
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert (np.ptp(pixels, axis=2) > 100).mean() > 0.01  # images and bars, not a blank page


def test_no_region_and_saliency_that_is_not_finite(predictor, tmp_path):
    explanation = predictor.explain(draw(tmp_path / "x.png", 59, 211))
    broken = tuple(np.full_like(saliency, np.nan) for saliency in explanation.views.saliencies)
    scales = tuple(scale._replace(has_region=False) for scale in explanation.prediction.scales)
    prediction = explanation.prediction._replace(scales=scales, path=None)
    views = explanation.views._replace(saliencies=broken)
    plot_explanation(explanation._replace(views=views, prediction=prediction), tmp_path / "why.png")
    assert (tmp_path / "why.png").is_file()


def test_two_classes(tmp_path):
    predictor = Predictor.load(make_folder(tmp_path / "run", names=NAMES[:2]), "cpu")
    values = explain(predictor, draw(tmp_path / "x.png", 71, 67), tmp_path / "why.png")
    assert len(values["labels"]) == 2


def test_what_is_not_possible(predictor, tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(UnreadableImageError, match="empty"):
        explain(predictor, tmp_path / "empty.jpg", tmp_path / "why.png")
    image = draw(tmp_path / "x.png", 71, 67)
    with pytest.raises(OutputError, match=r"why\.pdf must end in \.png"):
        explain(predictor, image, tmp_path / "why.pdf")
    with pytest.raises(OutputError, match="is not a folder that you can write to"):
        explain(predictor, image, tmp_path / "empty.jpg" / "why.png")
    (tmp_path / "x.json").write_text("of somebody else")
    with pytest.raises(OutputError, match=r"x\.json exists"):
        explain(predictor, tmp_path / "empty.jpg", tmp_path / "x.PNG")
    (tmp_path / "x.json").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.jpg", "x.png"]


def test_the_region_of_the_last_scale_is_not_drawn(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(style, "draw_box", lambda _axes, box, *_, **__: drawn.append(box))
    image = draw(tmp_path / "x.png", 131, 97)
    for num_scales in (1, 2, 3):
        drawn.clear()
        predictor = Predictor.load(make_folder(tmp_path / f"{num_scales}", num_scales=num_scales), "cpu")
        explanation = predictor.explain(image)
        plot_explanation(explanation, tmp_path / "why.png")
        regions = [scale.box for scale in explanation.prediction.scales[:-1]]
        assert drawn == [*explanation.views.crop_boxes, *regions]

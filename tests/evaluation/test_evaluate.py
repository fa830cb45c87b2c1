import json

import numpy as np
import pytest

from ramstrans.data.datasets.cub import read_cub
from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.evaluation import evaluate as judging
from ramstrans.evaluation.evaluate import evaluate, gallery_choice, gallery_item
from ramstrans.models.config import ModelConfig
from ramstrans.saved.model import ModelMetadata
from tests.evaluation.builders import make_predictions
from tests.models.builders import randomise
from tests.training.builders import BACKBONE, TINY, tiny_model


@pytest.fixture(scope="module", params=["input", "full"])
def trial(request, birds):
    """A random model, its card, and the six test birds."""
    model = randomise(tiny_model(image_size=(24, 32), zoom_source=request.param))
    images = read_cub(birds)
    config = ModelConfig(BACKBONE, 3, (24, 32), zoom_source=request.param, backbone_options=TINY)
    crop = (24, 32) if request.param == "input" else (36, 48)
    metadata = ModelMetadata(config, images.class_names, Preprocessing(48, crop))
    dataset = ImageDataset(images.of_split("test"), metadata.preprocessing, (24, 32))
    return model.eval(), metadata, dataset


def judged(trial, folder, **extra):
    return evaluate(*trial, folder, precision="fp32", batch_size=4, extra=extra)


def test_a_judgement_is_a_report_and_its_pictures(trial, tmp_path):
    report = judged(trial, tmp_path, command="ramstrans evaluate", warnings=("left out: one",))
    assert {path.name for path in tmp_path.iterdir()} == {
        *("report.json", "report.md", "gallery.png", "confusion.png"),
    }
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["num_images"] == 6
    assert report["command"] == "ramstrans evaluate"
    assert report["warnings"][0] == "left out: one"
    page = (tmp_path / "report.md").read_text()
    assert "gallery.png" in page
    assert "curves.png" not in page


def test_curves_are_drawn_where_there_are_metrics(trial, tmp_path, monkeypatch, no_pictures):
    drawn = []
    monkeypatch.setattr(judging, "plot_curves", lambda rows, path: drawn.append((rows, path.name)))
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n')
    judged(trial, tmp_path)
    assert drawn == [([{"kind": "train", "step": 1}], "curves.png")]
    assert "curves.png" in (tmp_path / "report.md").read_text()


def test_the_gallery_shows_right_and_wrong_ones_as_they_were_answered():
    predictions = make_predictions(num_images=97, num_classes=3)
    is_right = predictions.fused.argmax(axis=1) == predictions.labels
    chosen = gallery_choice(predictions, 7)
    assert len(set(chosen)) == 14
    assert is_right[chosen].tolist() == [True] * 7 + [False] * 7
    assert chosen == gallery_choice(predictions, 7)
    assert chosen[:7] != np.flatnonzero(is_right)[:7].tolist()  # drawn, not the first ones


def test_a_gallery_without_mistakes_is_shorter():
    predictions = make_predictions(num_images=5, num_classes=3)
    predictions = predictions._replace(labels=predictions.fused.argmax(axis=1))
    assert sorted(gallery_choice(predictions, 7)) == list(range(5))


def test_a_gallery_item_says_what_the_model_said(trial):
    _, metadata, dataset = trial
    item = gallery_item(*trial, 3, "fp32")
    record = dataset.records[3]
    assert item.image.size == (48, 48)
    assert item.true_name == metadata.class_names[record.label]
    assert item.true_box == record.box
    assert item.predicted_name in metadata.class_names
    assert 1 / 3 <= item.probability <= 1
    assert len(item.scale_predictions) == 2
    assert item.saliency.shape == (3, 4)
    assert item.crop.size == (32, 24)
    x0, y0, x1, y1 = item.saliency_frame
    height, width = metadata.preprocessing.crop  # the resized photograph is the photograph
    assert (x1 - x0, y1 - y0) == pytest.approx((width, height))
    assert x0 <= item.box[0] < item.box[2] <= x1
    assert y0 <= item.box[1] < item.box[3] <= y1

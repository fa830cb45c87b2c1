import csv
import json

import pytest

from ramstrans.data.datasets.cub import read_cub
from ramstrans.data.loading.loader import ImageDataset, build_loader
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import ConfigError, OutputError, UsageError
from ramstrans.evaluation import evaluate as module
from ramstrans.evaluation import faithfulness
from ramstrans.evaluation.config import EvaluationConfig
from ramstrans.evaluation.evaluate import evaluate_run
from ramstrans.evaluation.predict import predict_split
from ramstrans.evaluation.report import write
from ramstrans.evaluation.report.gallery import gallery_views
from ramstrans.models.config import ModelConfig
from ramstrans.saved.metadata import ModelMetadata
from ramstrans.training.run import prepare, train
from tests.evaluation.builders import metrics, pixels
from tests.models.builders import randomise
from tests.tiny import BACKBONE, TINY, tiny_model, tiny_run


@pytest.fixture(scope="module", params=["input", "full", "native"])
def trial(request, birds):
    """A random model, its metadata, and a loader of the six test birds."""
    model = randomise(tiny_model(image_size=(24, 32), zoom_source=request.param))
    images = read_cub(birds)
    config = ModelConfig(BACKBONE, 3, (24, 32), zoom_source=request.param, backbone_options=TINY)
    crop = (24, 32) if request.param == "input" else (36, 48)
    zoom_pixels = 10**6 if request.param == "native" else None
    metadata = ModelMetadata(config, images.class_names, Preprocessing(48, crop, zoom_pixels=zoom_pixels))
    dataset = ImageDataset(images.of_split("test"), metadata.preprocessing, (24, 32))
    return (
        model.eval(),
        metadata,
        build_loader(dataset, 4, shuffle=False, with_high_res=config.needs_high_res),
    )


def report_on(trial, folder, **extra):
    return module.evaluate(*trial, folder, precision="fp32", extra=extra)


@pytest.mark.parametrize("trial", ["native"], indirect=True)
def test_an_evaluation_writes_a_report_and_its_figures(trial, tmp_path):
    report = report_on(trial, tmp_path, command="ramstrans evaluate", warnings=("left out: one",))
    assert {path.name for path in tmp_path.iterdir()} == {
        *("report.json", "report.md", "report.html", "gallery.png", "confusion.png", "predictions.csv"),
    }
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["num_images"] == 6
    assert report["command"] == "ramstrans evaluate"
    assert report["warnings"][0] == "left out: one"
    page = (tmp_path / "report.md").read_text()
    assert "gallery.png" in page
    assert "[predictions.csv](predictions.csv)" in page
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>Report: 6 images of the test split</title>" in html
    assert "Left out: one." in html
    num_classes = len(report["classes"])
    assert html.count('<td class="thumbs"><img src="data:image/webp') == num_classes
    assert (
        html.count("<figcaption>scale 2 saw</figcaption>")
        == html.count("<figcaption>photograph</figcaption>")
        > 0
    )
    rows = (tmp_path / "predictions.csv").read_text().splitlines()[1:]
    assert len(rows) == 6
    assert sum(",True,0." in row for row in rows) == round(6 * report["fused"]["top1"] / 100)
    assert "curves.png" not in page


def test_curves_are_drawn_if_there_are_metrics(trial, tmp_path, monkeypatch, no_pictures):
    drawn = []
    monkeypatch.setattr(write, "plot_curves", lambda rows, path: drawn.append((rows, path.name)))
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n')
    report_on(trial, tmp_path)
    assert drawn == [([{"kind": "train", "step": 1}], "curves.png")]
    assert "curves.png" in (tmp_path / "report.md").read_text()


def test_gallery_views_are_those_of_the_predictions(trial):
    model, metadata, loader = trial
    predictions = predict_split(model, loader)
    other, views = gallery_views(model, metadata, loader.dataset, [5, 3], "fp32")
    assert views.size == views.image.size == (48, 48)
    assert views.saliencies[0].shape == (3, 4)
    assert (views.saliencies[0] != other.saliencies[0]).any()
    assert [crop.size for crop in views.crops] == [(32, 24)] * 2
    whole, region = views.crop_boxes
    assert region == pytest.approx(tuple(predictions.boxes[0, 3]), abs=1e-3)
    height, width = metadata.preprocessing.crop  # the resized image has the size of the original
    assert (whole[2] - whole[0], whole[3] - whole[1]) == pytest.approx((width, height))


def test_the_metrics_of_the_run_are_reproduced(trained, evaluate, tmp_path):
    report = evaluate()
    assert metrics(report) == metrics(trained.report)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert report["command"] == "ramstrans evaluate"
    assert report["precision"] == "fp32"


def test_scales_are_fused_with_weights_of_the_validation_split(trained, tmp_path, no_pictures):
    config = EvaluationConfig(trained.folder, output=tmp_path / "out", device="cpu", fusion="fitted")
    report = evaluate_run(config)
    assert sum(report["fusion_weights"]) == pytest.approx(1)
    assert (report["fusion_num_images"], report["num_images"]) == (3, 6)
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    right = [row["predicted"] == row["true"] for row in rows]
    assert report["fused"]["top1"] == pytest.approx(100 * sum(right) / 6)
    assert "fused: weighted mean" in (tmp_path / "out" / "report.md").read_text()
    own = EvaluationConfig(trained.folder, num_scales=2, fusion="fitted").folder
    assert own == trained.folder / "evaluation-test-2_scales-fitted"
    with pytest.raises(ConfigError, match="leave --fusion out"):
        EvaluationConfig(trained.folder, early_exit=0.5, fusion="fitted")
    one = EvaluationConfig(trained.folder, output=tmp_path / "out", num_scales=1, fusion="fitted")
    with pytest.raises(UsageError, match="this model has one scale, so there is nothing to fuse"):
        evaluate_run(one)


def test_regions_are_judged_if_asked_for(trained, tmp_path, monkeypatch):
    """On a part of the images: in the report, as a section, and as pictures."""
    monkeypatch.setattr(faithfulness, "NUM_STEPS", 2)
    monkeypatch.setattr(write, "plot_confusion", lambda *_: None)
    monkeypatch.setattr(write, "report_page", lambda *_: "")
    monkeypatch.setattr(write, "choose_groups", lambda *_: {"one is enough": [0]})
    config = EvaluationConfig(trained.folder, output=tmp_path / "out", device="cpu", regions=3)
    report = evaluate_run(config)
    assert report["num_images"] == 6
    judged = report["regions_judged"]
    assert judged.keys() == {
        *("num_images", "num_boxes", "fill", "whole", "regions", "true_box", "moved", "same_answer"),
        "curves",
    }
    assert judged["num_images"] == judged["num_boxes"] == 3
    page = (tmp_path / "out" / "report.md").read_text()
    assert "## Regions judged" in page
    assert (
        f"| region alone | {judged['regions'][0]['alone']:.1f} % | {judged['true_box']['alone']:.1f} % |"
        in page
    )
    for name in ("regions.png", "region_curves.png"):
        assert f"({name})" in page
        assert pixels(tmp_path / "out" / name).std() > 10
    assert metrics(report) == metrics(trained.report)
    with pytest.raises(ConfigError, match="--regions is 0; give a number of images"):
        EvaluationConfig(trained.folder, regions=0)


@pytest.mark.usefixtures("bf16_units")
def test_bf16_metrics_are_reproduced(birds, evaluate, tmp_path):
    config = tiny_run(birds, training={"precision": "bf16", "max_steps": 2, "lr": 0.03})
    report = train(prepare(config), tmp_path / "run")
    again = evaluate(tmp_path / "run")
    assert again["precision"] == "bf16"
    assert metrics(again) == metrics(report)


def test_an_output_that_cannot_be_written(evaluate, tmp_path):
    (tmp_path / "out").write_text("not a folder")
    with pytest.raises(OutputError, match="out cannot be written"):
        evaluate()

import csv
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ramstrans.data.config import DataConfig
from ramstrans.data.datasets.cub import read_cub
from ramstrans.data.loading.loader import ImageDataset, build_loader
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import ConfigError, DataError, OutputError, UnreadableImageError, UsageError
from ramstrans.evaluation import evaluate as module
from ramstrans.evaluation import faithfulness
from ramstrans.evaluation.config import EvaluationConfig, EvaluationData
from ramstrans.evaluation.evaluate import evaluate_run
from ramstrans.evaluation.images import data_config, with_labels_of
from ramstrans.evaluation.predict import predict_split
from ramstrans.evaluation.report import write
from ramstrans.evaluation.report.gallery import gallery_views
from ramstrans.models.config import ModelConfig
from ramstrans.saved.metadata import EarlyExit, ModelMetadata
from ramstrans.saved.model import load_metadata, load_state, save_model
from ramstrans.training.run import prepare, train
from tests.evaluation.builders import pixels
from tests.models.builders import randomise
from tests.training.builders import BACKBONE, TINY, tiny_model, tiny_run

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


@pytest.fixture
def evaluate(trained, tmp_path, no_pictures):
    """Evaluates a saved model into `tmp_path / "out"`."""

    def evaluate(folder=trained.folder, split=None, *, early_exit=None, **data):
        options = {"output": tmp_path / "out", "batch_size": 4, "device": "cpu", "early_exit": early_exit}
        config = EvaluationConfig(folder, split, data=EvaluationData(**data), **options)
        return evaluate_run(config, command="ramstrans evaluate")

    return evaluate


@pytest.fixture
def copied(birds, tmp_path):
    root = tmp_path / "elsewhere" / "birds"
    shutil.copytree(birds, root)
    return root


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


def test_bf16_metrics_are_reproduced(birds, evaluate, tmp_path):
    config = tiny_run(birds, training={"precision": "bf16", "max_steps": 2, "lr": 0.03})
    report = train(prepare(config), tmp_path / "run")
    again = evaluate(tmp_path / "run")
    assert again["precision"] == "bf16"
    assert metrics(again) == metrics(report)


def test_the_validation_part_is_the_one_held_out_in_training(trained, evaluate):
    report = evaluate(split="val")
    assert report["num_images"] == len(trained.prepared.images.of_split("val")) == 3
    assert report["split"] == "val"


def test_labels_in_another_order_are_mapped_by_name(trained, evaluate, copied):
    classes = copied / "classes.txt"
    classes.write_text("".join(line + "\n" for line in reversed(classes.read_text().splitlines())))
    assert metrics(evaluate(root=copied)) == metrics(trained.report)


def test_another_format(trained, evaluate, birds, tmp_path):
    table = tmp_path / "birds.csv"
    rows = [
        f"{record.path},{trained.prepared.images.class_names[record.label]},{record.split}"
        for record in trained.prepared.images.records
    ]
    table.write_text("\n".join(["path,label,split", *rows]) + "\n")
    report = evaluate(root=table, split="test")
    assert report["fused"] == trained.report["fused"]
    assert report["regions"]["mean_iou"] is None  # no boxes in this table


@pytest.fixture
def color_run(colors, tmp_path):
    """A run on class folders without splits, 12 images."""
    root = tmp_path / "colors"
    shutil.copytree(colors / "train", root)
    data = {"test_fraction": 0.5, "val_fraction": 0}
    train(prepare(tiny_run(root, "folder", data=data, training={"max_steps": 1})), tmp_path / "run")
    return root


def test_a_labelled_set_is_evaluated_whole(color_run, colors, evaluate, tmp_path):
    """Of a folder, one with test/ alone, a class alone, and a table of test images with unlabelled rows."""
    new = tmp_path / "new"
    shutil.copytree(colors / "test", new / "plain")
    assert evaluate(tmp_path / "run", root=new / "plain")["num_images"] == 6
    shutil.copytree(colors / "test", new / "split" / "test")
    report = evaluate(tmp_path / "run", root=new / "split")
    assert (report["num_images"], report["split"]) == (6, "test")
    for name in ("Bistre_owl", "Coral_ibis"):
        shutil.rmtree(new / "split" / "test" / name)
    assert evaluate(tmp_path / "run", root=new / "split")["num_images"] == 2
    rows = [f"plain/Azure_tit/{i}.png,{label},test" for i, label in enumerate(("Azure_tit", ""))]
    (new / "set.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    assert evaluate(tmp_path / "run", root=new / "set.csv")["num_images"] == 1


def test_a_set_with_its_own_splits_is_evaluated_whole_with_a_note_or_in_part(
    color_run, colors, evaluate, tmp_path, caplog
):
    report = evaluate(tmp_path / "run", root=colors)
    assert report["num_images"] == 18
    assert report["split"] == "all"
    assert report["warnings"][0].startswith(f"all 18 images of {colors} are evaluated, of all its splits")
    assert report["warnings"][0] in caplog.messages
    report = evaluate(tmp_path / "run", "test", root=colors)
    assert report["num_images"] == 6
    assert report["split"] == "test"
    assert not any("of all its splits" in warning for warning in report["warnings"])


def test_the_runs_own_set_keeps_its_splits_also_where_it_was_moved(color_run, evaluate, tmp_path):
    of_run = json.loads((tmp_path / "run" / "report.json").read_text())
    assert of_run["num_images"] == 6
    assert metrics(evaluate(tmp_path / "run", root=color_run)) == metrics(of_run)
    color_run.rename(tmp_path / "moved")
    assert metrics(evaluate(tmp_path / "run", root=tmp_path / "moved")) == metrics(of_run)


def test_unreadable_files_of_a_new_set_are_left_out_if_asked_for(color_run, colors, evaluate, tmp_path):
    new = tmp_path / "new"
    shutil.copytree(colors / "test", new)
    (new / "Azure_tit" / "0.png").write_bytes(b"")
    with pytest.raises(UnreadableImageError) as caught:
        evaluate(tmp_path / "run", root=new)
    assert "--data.on_unreadable skip leaves such files out" in caught.value.__notes__[0]
    report = evaluate(tmp_path / "run", root=new, on_unreadable="skip")
    assert report["num_images"] == 5
    assert "left out: " in report["warnings"][0]


def test_the_columns_of_a_new_table(color_run, colors, evaluate, tmp_path):
    (tmp_path / "new.csv").write_text(f"file,bird\n{colors}/test/Azure_tit/0.png,Azure_tit\n")
    report = evaluate(tmp_path / "run", root=tmp_path / "new.csv", path_column="file", label_column="bird")
    assert report["num_images"] == 1


def test_the_folder_of_a_report(tmp_path):
    def folder(**options):
        return EvaluationConfig(Path("run"), **options).folder

    assert folder() == Path("run/evaluation-test")
    assert folder(data=EvaluationData(root=Path("new/birds.csv"))) == Path("run/evaluation-birds")
    assert folder(data=EvaluationData(root=Path("new")), split="val") == Path("run/evaluation-val")
    assert folder(output=Path("out")) == Path("out")


def test_a_class_that_the_model_does_not_know(evaluate, copied):
    classes = copied / "classes.txt"
    classes.write_text(classes.read_text().replace("002.", "002.Unheard_of_"))
    with pytest.raises(DataError, match=r"1 class is not among the model's 3, e\.g\. '002\.Unheard_of_"):
        evaluate(root=copied)


def test_an_empty_split_is_an_error(trained):
    images = trained.prepared.images
    only_train = images._replace(records=images.of_split("train"))
    with pytest.raises(DataError, match="no val images; choose another --split"):
        with_labels_of(load_metadata(trained.folder), only_train, "val")


@pytest.fixture
def broken(copied):
    path = sorted(copied.glob("images/001.*/*.jpg"))[-1]
    path.write_bytes(b"")
    return path


def test_an_unreadable_file_stops_and_is_named(evaluate, copied, broken):
    with pytest.raises(UnreadableImageError, match="empty file") as caught:
        evaluate(root=copied)
    assert caught.value.path == broken


def skipping(trained, folder):
    """The trained model in another folder, as if trained with unreadable files left out."""
    metadata = load_metadata(trained.folder)
    run = metadata.training["run"]
    run["data"] = run["data"] | {"on_unreadable": "skip"}
    save_model(folder, load_state(trained.folder), replace(metadata, training={"run": run}))
    return folder


def test_an_unreadable_file_is_left_out_if_training_did_so(trained, evaluate, copied, broken, tmp_path):
    report = evaluate(skipping(trained, tmp_path / "model"), root=copied)
    assert report["num_images"] == 5
    assert any(str(broken) in warning for warning in report["warnings"])


def test_nothing_readable_is_an_error(trained, evaluate, copied, tmp_path):
    for path in copied.glob("images/*/*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 6 files"):
        evaluate(skipping(trained, tmp_path / "model"), root=copied)


def test_a_saved_model_without_a_run_needs_its_data_named(trained, evaluate, birds, tmp_path):
    folder = tmp_path / "model"
    save_model(folder, load_state(trained.folder), replace(load_metadata(trained.folder), training={}))
    with pytest.raises(UsageError, match=r"--data\.root"):
        evaluate(folder)
    report = evaluate(folder, name="cub", root=birds)
    assert metrics(report) == metrics(trained.report)


def test_an_output_that_cannot_be_written(evaluate, tmp_path):
    (tmp_path / "out").write_text("not a folder")
    with pytest.raises(OutputError, match="out cannot be written"):
        evaluate()


def test_options_that_are_not_allowed():
    with pytest.raises(ConfigError, match="--batch_size is 0; give 1 or more"):
        EvaluationConfig(Path("run"), batch_size=0)


@pytest.fixture
def model_folder(trained, tmp_path):
    folder = tmp_path / "model"
    save_model(folder, load_state(trained.folder), load_metadata(trained.folder))
    return folder


def test_a_choice_on_few_images_is_reported_with_a_margin(model_folder, evaluate, monkeypatch):
    choice = EarlyExit(0.9, "val", 3, 0.0, 1.5)
    monkeypatch.setattr(module, "choose_exit", lambda *_, **__: choice)
    assert (
        "leave a margin, e.g. --early_exit 0.950" in evaluate(model_folder, early_exit="auto")["warnings"][0]
    )


def test_early_exit_is_chosen_on_validation_and_saved(model_folder, evaluate, tmp_path):
    report = evaluate(model_folder, early_exit="auto")
    choice = load_metadata(model_folder).early_exit
    assert (choice.chosen_on, choice.num_images) == ("val", 3)
    assert report["early_exit_choice"] == asdict(choice)
    early = report["early_exit"]
    assert early["confidence"] == choice.confidence
    assert 1 <= early["mean_scales_used"] <= 2
    assert early["top1"] == pytest.approx(report["fused"]["top1"] - early["top1_lost"])
    assert early["speedup"] > 0
    page = (tmp_path / "out" / "report.md").read_text()
    assert "chosen on 3 images (val)" in page
    assert "early_exit.png" in page
    assert (tmp_path / "out" / "early_exit.png").is_file()


def test_early_exit_at_a_given_confidence_is_evaluated_and_not_saved(model_folder, evaluate, tmp_path):
    report = evaluate(model_folder, early_exit=1e-6)
    assert load_metadata(model_folder).early_exit is None
    assert "early_exit_choice" not in report
    assert report["early_exit"]["mean_scales_used"] == 1
    assert report["early_exit"]["exited_early"] == 100
    assert report["early_exit"]["top1"] == report["scales"][0]["top1"]
    assert "The confidence was given." in (tmp_path / "out" / "report.md").read_text()


def test_early_exit_that_is_not_possible(birds, evaluate, trained, tmp_path):
    with pytest.raises(UsageError, match="confidence of early exit is 0"):
        evaluate(early_exit=0.0)
    whole = tiny_run(birds, data={"val_fraction": 0.0}, training={"max_steps": 1})
    train(prepare(whole), tmp_path / "whole")
    with pytest.raises(UsageError, match=r"none were held out; train with --data\.val_fraction above 0"):
        evaluate(tmp_path / "whole", early_exit="auto")
    train(prepare(tiny_run(birds, model={"num_scales": 1}, training={"max_steps": 1})), tmp_path / "plain")
    with pytest.raises(UsageError, match="--early_exit"):
        evaluate(tmp_path / "plain", early_exit=0.5)
    assert not (tmp_path / "out").exists()


def test_the_data_of_the_run_are_used_unless_others_are_given():
    trained_on = {
        "name": "cub",
        "root": "birds",
        "val_fraction": 0.3,
        "resize": 600,
        "crop": [448, 448],
        "of_a_newer_version": 1,
    }
    fixed = {"val_fraction": 0.3, "on_unlabelled": "skip"}
    assert data_config(trained_on, EvaluationData()) == DataConfig("cub", Path("birds"), **fixed)
    moved = data_config(trained_on, EvaluationData("folder", Path("moved")))
    assert moved == DataConfig("folder", Path("moved"), **fixed)


def test_the_image_folder_belongs_to_the_runs_own_table(tmp_path):
    trained_on = {"name": "table", "root": "a.csv", "image_folder": "images"}
    assert data_config(trained_on, EvaluationData()).image_folder == Path("images")
    (tmp_path / "b.csv").touch()
    assert data_config(trained_on, EvaluationData(root=tmp_path / "b.csv")).image_folder is None
    given = EvaluationData(root=tmp_path / "b.csv", image_folder=tmp_path)
    assert data_config(trained_on, given).image_folder == tmp_path


def test_a_cache_of_another_machine_is_ignored(tmp_path):
    trained_on = {"name": "cub", "root": "birds", "cache": "disk", "cache_dir": str(tmp_path)}
    assert data_config(trained_on, EvaluationData()).cache_dir == tmp_path
    gone = data_config(trained_on | {"cache_dir": str(tmp_path / "gone")}, EvaluationData())
    assert (gone.cache, gone.cache_dir) == ("disk", None)

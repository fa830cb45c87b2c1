"""A run is judged again from its folder alone."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ramstrans.data.config import DataConfig
from ramstrans.errors import DataError, OutputError, UnreadableImageError, UsageError
from ramstrans.evaluation.run import data_config, evaluate_run, with_labels_of
from ramstrans.saved.model import load_metadata, load_state, save_model
from ramstrans.training.run import prepare, train
from tests.training.builders import tiny_run

FIGURES = (
    "num_images",
    "scales",
    "fused",
    "second_look",
    "regions",
    "regions_by_scale",
    "classes",
    "confused",
)

pytestmark = pytest.mark.usefixtures("no_pictures")


def figures(report):
    return {key: report[key] for key in FIGURES}


@pytest.fixture
def evaluate(trained, tmp_path):
    def evaluate(folder=trained.folder, split="test", **options):
        return evaluate_run(folder, split, tmp_path / "out", batch_size=4, device="cpu", **options)

    return evaluate


@pytest.fixture
def copied(birds, tmp_path):
    root = tmp_path / "elsewhere" / "birds"
    shutil.copytree(birds, root)
    return root


def test_the_runs_own_figures_come_out_again(trained, evaluate, tmp_path):
    report = evaluate(command="ramstrans evaluate")
    assert figures(report) == figures(trained.report)
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert report["command"] == "ramstrans evaluate"
    assert report["precision"] == "fp32"


def test_bf16_figures_come_out_again(birds, evaluate, tmp_path):
    config = tiny_run(birds, training={"precision": "bf16", "max_steps": 2, "lr": 0.03})
    report = train(prepare(config), tmp_path / "run")
    again = evaluate(tmp_path / "run")
    assert again["precision"] == "bf16"
    assert figures(again) == figures(report)


def test_the_validation_part_is_the_one_held_out_in_training(trained, evaluate):
    report = evaluate(split="val")
    assert report["num_images"] == len(trained.prepared.images.of_split("val")) == 3
    assert report["split"] == "val"


def test_another_place_of_the_data(trained, evaluate, copied):
    assert figures(evaluate(data_root=copied)) == figures(trained.report)


def test_labels_in_another_order_are_mapped_by_name(trained, evaluate, copied):
    classes = copied / "classes.txt"
    classes.write_text("".join(line + "\n" for line in reversed(classes.read_text().splitlines())))
    assert figures(evaluate(data_root=copied)) == figures(trained.report)


def test_another_layout(trained, evaluate, birds, tmp_path):
    table = tmp_path / "birds.csv"
    rows = [
        f"{record.path},{trained.prepared.images.class_names[record.label]},{record.split}"
        for record in trained.prepared.images.records
    ]
    table.write_text("\n".join(["path,label,split", *rows]) + "\n")
    report = evaluate(data_name="table", data_root=table)
    assert report["fused"] == trained.report["fused"]
    assert report["regions"]["mean_iou"] is None  # no boxes in this table


def test_a_class_that_the_model_does_not_know(evaluate, copied):
    classes = copied / "classes.txt"
    classes.write_text(classes.read_text().replace("002.", "002.Unheard_of_"))
    with pytest.raises(DataError, match=r"1 classes are not among the model's 3, e\.g\. '002\.Unheard_of_"):
        evaluate(data_root=copied)


def test_an_empty_split_is_told(trained):
    images = trained.prepared.images
    only_train = images._replace(records=images.of_split("train"))
    with pytest.raises(DataError, match="no val images; take another --split"):
        with_labels_of(load_metadata(trained.folder), only_train, "val")


@pytest.fixture
def broken(copied):
    path = sorted(copied.glob("images/001.*/*.jpg"))[-1]
    path.write_bytes(b"")
    return path


def test_an_unreadable_file_stops_and_is_named(evaluate, copied, broken):
    with pytest.raises(UnreadableImageError, match="empty file") as caught:
        evaluate(data_root=copied)
    assert caught.value.path == broken


def skipping(trained, folder):
    """The trained model in another folder, as if trained with unreadable files left out."""
    metadata = load_metadata(trained.folder)
    run = metadata.training["run"]
    run["data"] = run["data"] | {"on_unreadable": "skip"}
    save_model(folder, load_state(trained.folder), replace(metadata, training={"run": run}))
    return folder


def test_an_unreadable_file_is_left_out_if_training_did_so(trained, evaluate, copied, broken, tmp_path):
    report = evaluate(skipping(trained, tmp_path / "model"), data_root=copied)
    assert report["num_images"] == 5
    assert any(str(broken) in warning for warning in report["warnings"])


def test_nothing_readable_is_an_error(trained, evaluate, copied, tmp_path):
    for path in copied.glob("images/*/*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 6 files"):
        evaluate(skipping(trained, tmp_path / "model"), data_root=copied)


def test_a_model_folder_without_a_run_needs_its_data_named(trained, evaluate, birds, tmp_path):
    folder = tmp_path / "model"
    save_model(folder, load_state(trained.folder), replace(load_metadata(trained.folder), training={}))
    with pytest.raises(UsageError, match=r"--data\.name"):
        evaluate(folder)
    report = evaluate(folder, data_name="cub", data_root=birds)
    assert figures(report) == figures(trained.report)


def test_an_output_that_cannot_be_written(trained, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot be written"):
        evaluate_run(trained.folder, "test", tmp_path / "file" / "out", device="cpu")


@pytest.fixture
def model_folder(trained, tmp_path):
    folder = tmp_path / "model"
    save_model(folder, load_state(trained.folder), load_metadata(trained.folder))
    return folder


def test_early_exit_is_chosen_on_validation_and_kept(model_folder, evaluate, tmp_path):
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


def test_early_exit_at_a_given_confidence_is_judged_and_not_kept(model_folder, evaluate, tmp_path):
    report = evaluate(model_folder, early_exit=1e-6)
    assert load_metadata(model_folder).early_exit is None
    assert "early_exit_choice" not in report
    assert report["early_exit"]["mean_scales_used"] == 1
    assert report["early_exit"]["exited_early"] == 100
    assert report["early_exit"]["top1"] == report["scales"][0]["top1"]
    assert "The confidence was given." in (tmp_path / "out" / "report.md").read_text()


def test_early_exit_that_cannot_be(birds, evaluate, trained, tmp_path):
    with pytest.raises(UsageError, match="confidence of early exit is 0"):
        evaluate(early_exit=0.0)
    whole = tiny_run(birds, data={"val_fraction": 0.0}, training={"max_steps": 1})
    train(prepare(whole), tmp_path / "whole")
    with pytest.raises(UsageError, match=r"none were held out; train with --data\.val_fraction above 0"):
        evaluate(tmp_path / "whole", early_exit="auto")
    train(prepare(tiny_run(birds, model={"num_scales": 1}, training={"max_steps": 1})), tmp_path / "plain")
    with pytest.raises(UsageError, match="looks once"):
        evaluate(tmp_path / "plain", early_exit=0.5)
    assert not (tmp_path / "out").exists()


def test_the_data_of_the_run_are_taken_but_for_what_is_given():
    trained_on = {
        "name": "cub",
        "root": "birds",
        "val_fraction": 0.3,
        "resize": 600,
        "crop": [448, 448],
        "of_a_newer_version": 1,
    }
    assert data_config(trained_on, None, None) == DataConfig("cub", Path("birds"), val_fraction=0.3)
    moved = data_config(trained_on, "folder", Path("moved"))
    assert moved == DataConfig("folder", Path("moved"), val_fraction=0.3)


def test_a_cache_of_another_machine_is_not_looked_for(tmp_path):
    trained_on = {"name": "cub", "root": "birds", "cache": "disk", "cache_dir": str(tmp_path)}
    assert data_config(trained_on, None, None).cache_dir == tmp_path
    gone = data_config(trained_on | {"cache_dir": str(tmp_path / "gone")}, None, None)
    assert (gone.cache, gone.cache_dir) == ("disk", None)

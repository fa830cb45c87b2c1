"""Which images a run is evaluated on: its own, those of other sets, and what is left out."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ramstrans.data.config import DataConfig
from ramstrans.errors import DataError, UnreadableImageError, UsageError
from ramstrans.evaluation.config import EvaluationData
from ramstrans.evaluation.images import data_config, with_labels_of
from ramstrans.saved.model import load_metadata, load_state, save_model
from ramstrans.training.run import prepare, train
from tests.evaluation.builders import metrics
from tests.tiny import tiny_run


@pytest.fixture
def copied(birds, tmp_path):
    root = tmp_path / "elsewhere" / "birds"
    shutil.copytree(birds, root)
    return root


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


@pytest.fixture(scope="module")
def color_run(colors, tmp_path_factory):
    """The folder of a run on class folders without splits, 12 images, which lie beside it in `colors`."""
    run = tmp_path_factory.mktemp("color") / "run"
    root = shutil.copytree(colors / "train", run.with_name("colors"))
    data = {"test_fraction": 0.5, "val_fraction": 0}
    train(prepare(tiny_run(root, "folder", data=data, training={"max_steps": 1})), run)
    return run


def test_a_labelled_set_is_evaluated_whole(color_run, colors, evaluate, tmp_path):
    """Of a folder, one with test/ alone, a class alone, and a table of test images with unlabelled rows."""
    new = tmp_path / "new"
    shutil.copytree(colors / "test", new / "plain")
    assert evaluate(color_run, root=new / "plain")["num_images"] == 6
    shutil.copytree(colors / "test", new / "split" / "test")
    report = evaluate(color_run, root=new / "split")
    assert (report["num_images"], report["split"]) == (6, "test")
    for name in ("Bistre_owl", "Coral_ibis"):
        shutil.rmtree(new / "split" / "test" / name)
    assert evaluate(color_run, root=new / "split")["num_images"] == 2
    rows = [f"plain/Azure_tit/{i}.png,{label},test" for i, label in enumerate(("Azure_tit", ""))]
    (new / "set.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    assert evaluate(color_run, root=new / "set.csv")["num_images"] == 1


def test_a_set_with_its_own_splits_is_evaluated_whole_with_a_note_or_in_part(
    color_run, colors, evaluate, tmp_path, caplog
):
    report = evaluate(color_run, root=colors)
    assert report["num_images"] == 18
    assert report["split"] == "all"
    assert report["warnings"][0].startswith(f"all 18 images of {colors} are evaluated, of all its splits")
    assert report["warnings"][0] in caplog.messages
    report = evaluate(color_run, "test", root=colors)
    assert report["num_images"] == 6
    assert report["split"] == "test"
    assert not any("of all its splits" in warning for warning in report["warnings"])


def test_the_runs_own_set_keeps_its_splits_also_where_it_was_moved(color_run, evaluate, tmp_path):
    of_run = json.loads((color_run / "report.json").read_text())
    assert of_run["num_images"] == 6
    root = color_run.with_name("colors")
    assert metrics(evaluate(color_run, root=root)) == metrics(of_run)
    moved = root.rename(tmp_path / "moved")
    try:
        assert metrics(evaluate(color_run, root=moved)) == metrics(of_run)
    finally:
        moved.rename(root)


def test_unreadable_files_of_a_new_set_are_left_out_if_asked_for(color_run, colors, evaluate, tmp_path):
    new = tmp_path / "new"
    shutil.copytree(colors / "test", new)
    (new / "Azure_tit" / "0.png").write_bytes(b"")
    with pytest.raises(UnreadableImageError) as caught:
        evaluate(color_run, root=new)
    assert "--data.on_unreadable skip leaves such files out" in caught.value.__notes__[0]
    report = evaluate(color_run, root=new, on_unreadable="skip")
    assert report["num_images"] == 5
    assert "left out: " in report["warnings"][0]


def test_the_columns_of_a_new_table(color_run, colors, evaluate, tmp_path):
    (tmp_path / "new.csv").write_text(f"file,bird\n{colors}/test/Azure_tit/0.png,Azure_tit\n")
    report = evaluate(color_run, root=tmp_path / "new.csv", path_column="file", label_column="bird")
    assert report["num_images"] == 1


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

"""A run on images that may have several labels, from the table to predictions; what does not go with it."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import ramstrans
from ramstrans.cli import main
from ramstrans.data import read_table
from ramstrans.data.config import DataConfig
from ramstrans.errors import ConfigError, UsageError
from ramstrans.evaluation.multi_label import best_thresholds
from ramstrans.inference.prediction import Prediction
from ramstrans.inference.writers import to_json
from ramstrans.plain import split_labels
from ramstrans.saved.metadata import load_metadata
from tests.tiny import tiny_run

NAMES = ("blue", "green", "red")


def picture(labels, seed):
    """Grey noise with a patch for each label, in its channel."""
    noise = np.random.default_rng(seed).integers(90, 130, (32, 32, 3), dtype=np.uint8)
    for label in labels:
        noise[4 + 8 * label : 12 + 8 * label, 8:24, 2 - label] = 250
    return Image.fromarray(noise)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of 48 images with none to three labels, of which the splits are drawn."""
    folder = tmp_path_factory.mktemp("several")
    rows = [("path", "label", *NAMES)]
    for index in range(48):
        labels = [label for label in range(3) if index >> label & 1]
        picture(labels, index).save(folder / f"{index}.png")
        rows.append(
            (
                f"{index}.png",
                ";".join(NAMES[label] for label in labels),
                *(int(label in labels) for label in range(3)),
            )
        )
    with (folder / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "table.csv"


def run_of(table, *, data=None, training=None, **fields):
    """A tiny run on that table."""
    data = {"multi_label": True, "val_fraction": 0.25} | (data or {})
    training = {"max_steps": 12, "batch_size": 8, "lr": 0.003} | (training or {})
    return tiny_run(table, "table", data=data, training=training, **fields)


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    """A finished run."""
    return ramstrans.train(run_of(table, output=tmp_path_factory.mktemp("runs") / "run"))


def test_the_report(trained):
    report = trained.report
    assert report["multi_label"] == "validation"
    assert len(report["scales"]) == 2
    assert 0 <= report["fused"]["map"] <= 100
    low, high = report["fused"]["f1_micro_interval"]
    assert low <= report["fused"]["f1_micro"] <= high
    assert [entry["name"] for entry in report["classes"]] == list(NAMES)
    assert all(entry["num_images"] for entry in report["classes"])  # each label is in the test split
    page = (trained.folder / "report.md").read_text()
    for text in ("mAP, fused: mean of all", "exact match", "Hardest labels", "highest F1 on the validation"):
        assert text in page
    assert (trained.folder / "gallery.png").is_file()
    assert not (trained.folder / "confusion.png").exists()
    rows = [json.loads(line) for line in (trained.folder / "metrics.jsonl").read_text().splitlines()]
    validated = [row for row in rows if row["kind"] == "validation"]
    best = max(validated, key=lambda row: (row["map_fused"], -row["loss_fused"]))
    assert best["is_best"]
    assert report["epoch"] == best["epoch"]


def test_predictions_beside_the_report_add_up(trained):
    with (trained.folder / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == trained.report["num_images"]
    hits = predicted = true = exact = 0
    for row in rows:
        known, found = set(split_labels(row["true"])), set(split_labels(row["predicted"]))
        assert (row["missed"], row["added"]) == (str(len(known - found)), str(len(found - known)))
        hits, predicted, true = hits + len(known & found), predicted + len(found), true + len(known)
        exact += row["correct"] == "True"
    assert trained.report["fused"]["f1_micro"] == pytest.approx(200 * hits / (predicted + true))
    assert trained.report["fused"]["exact_match"] == pytest.approx(100 * exact / len(rows))


def test_thresholds_are_those_of_the_validation_split_and_decide_what_is_present(trained, table, tmp_path):
    metadata = load_metadata(trained.folder)
    assert metadata.model.multi_label
    predictor = ramstrans.Predictor.load(trained.folder, device="cpu")
    assert predictor.thresholds == metadata.label_thresholds == metadata.thresholds
    arguments = [
        "evaluate",
        str(trained.folder),
        "--split",
        "val",
        "--device",
        "cpu",
        "--output",
        str(tmp_path / "e"),
    ]
    assert main(arguments) == 0
    with (tmp_path / "e" / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    given = [{row[f"label_{k}"]: float(row[f"probability_{k}"]) for k in (1, 2, 3)} for row in rows]
    probabilities = np.array([[one[name] for name in NAMES] for one in given])
    truth = np.array([[name in split_labels(row["true"]) for name in NAMES] for row in rows])
    assert best_thresholds(probabilities, truth) == pytest.approx(metadata.thresholds, abs=1e-5)
    for row, expected in list(zip(rows, given, strict=True))[:3]:
        prediction = predictor(row["path"])
        assert set(prediction.present) == set(split_labels(row["predicted"]))
        found = dict(zip(prediction.labels, prediction.probabilities, strict=True))
        assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "name", ["out.csv", "out.jsonl", pytest.param("out.parquet", marks=pytest.mark.slow)]
)
def test_predict_writes_what_is_present(trained, table, tmp_path, name):
    output = tmp_path / name
    arguments = [
        str(trained.folder),
        str(table.parent / "7.png"),
        str(tmp_path / "missing.png"),
        "--top_k",
        "2",
    ]
    assert main(["predict", *arguments, "--output", str(output), "--device", "cpu"]) == 3
    predictor = ramstrans.Predictor.load(trained.folder, device="cpu")
    expected = predictor(table.parent / "7.png", top_k=2)
    if name.endswith("jsonl"):
        first, second = [json.loads(line) for line in output.read_text().splitlines()]
        assert first["present"] == list(expected.present)
        assert first["labels"] == list(expected.labels)
        assert second["present"] == []
        return
    if name.endswith("csv"):
        with output.open() as stream:
            first, second = list(csv.DictReader(stream))
    else:
        from pyarrow import parquet

        first, second = parquet.read_table(output).to_pylist()
    assert list(split_labels(first["present"])) == list(expected.present)
    assert first["label_1"] == expected.labels[0]
    assert second["present"] == ""
    assert second["error"]


def test_explain_draws_and_tells_what_is_present(trained, table, tmp_path, capsys):
    arguments = [
        "explain",
        str(trained.folder),
        str(table.parent / "7.png"),
        "--output",
        str(tmp_path / "why.png"),
    ]
    assert main([*arguments, "--device", "cpu"]) == 0
    values = json.loads((tmp_path / "why.json").read_text())
    predictor = ramstrans.Predictor.load(trained.folder, device="cpu")
    assert values["present"] == list(predictor(table.parent / "7.png").present)
    line = capsys.readouterr().out.splitlines()[0]
    assert ("; ".join(values["present"]) or "no label") in line


@pytest.mark.slow
def test_without_validation_images_thresholds_are_a_half_and_it_is_said(table, tmp_path):
    config = run_of(table, data={"val_fraction": 0.0}, training={"max_steps": 2}, output=tmp_path / "run")
    report = ramstrans.train(config).report
    assert load_metadata(tmp_path / "run").label_thresholds is None
    assert report["multi_label"] == "0.5"
    assert any(
        "from a probability of 0.5: there were no validation images" in line for line in report["warnings"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "training",
    [
        {"loss": "asymmetric", "class_weights": "balanced"},
        {"mixup": 0.5, "cutmix": 0.5, "label_smoothing": 0.1},
        {"finetune": "lora", "gradient_accumulation_steps": 2},
        {"ema_decay": 0.9},
    ],
)
def test_other_recipes(table, tmp_path, training):
    report = ramstrans.train(
        run_of(table, training={"max_steps": 2} | training, output=tmp_path / "run")
    ).report
    assert 0 <= report["fused"]["map"] <= 100


@pytest.mark.slow
def test_columns_and_cells_are_the_same_data_set(table, tmp_path, trained):
    config = run_of(
        table, data={"multi_label": False, "label_columns": ",".join(NAMES)}, output=tmp_path / "run"
    )
    assert config.model.multi_label
    assert ramstrans.train(config).report["fused"] == trained.report["fused"]


@pytest.mark.slow
def test_a_model_of_several_labels_begins_one_of_others(table, tmp_path, trained):
    config = run_of(
        table, training={"max_steps": 1}, model={"weights": str(trained.folder)}, output=tmp_path / "run"
    )
    assert ramstrans.train(config).report["num_images"] == trained.report["num_images"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"folds": 3}}, "data.folds reports top-1"),
        ({"data": {"balance": 0.5}}, "data.balance draws classes"),
        ({"data": {"hold_out_classes": 1}}, "data.hold_out_classes leaves out images of a class"),
        ({"data": {"label_separator": ""}}, "data.label_separator is empty"),
        ({"training": {"contrastive": 1.0}}, "training.contrastive compares images of one class each"),
        ({"model": {"method": "transfg"}}, "training.contrastive compares images of one class each"),
        ({"training": {"finetune": "head", "max_steps": None}}, "training.finetune head fits a softmax"),
    ],
)
def test_what_needs_one_class_is_refused(table, sections, message):
    with pytest.raises(ConfigError, match=message):
        tiny_run(
            table,
            "table",
            **{"data": {}} | sections | {"data": {"multi_label": True} | sections.get("data", {})},
        )


def test_only_tables_have_several_labels(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.multi_label reads a table .* and this is 'folder'"):
        DataConfig("folder", tmp_path, multi_label=True)
    with pytest.raises(ConfigError, match=r"model\.multi_label follows from the data"):
        tiny_run(tmp_path, "folder", model={"multi_label": True})
    with pytest.warns(UserWarning, match=r"training\.loss is ignored without data\.multi"):
        tiny_run(tmp_path, "folder", training={"loss": "asymmetric"})


def test_early_exit_is_refused(trained, fails):
    with pytest.raises(UsageError, match="images of this model may have several labels"):
        ramstrans.Predictor.load(trained.folder, device="cpu", early_exit=0.9)
    for value in ("0.9", "auto"):
        assert "--early_exit out" in fails(2, "evaluate", trained.folder, "--early_exit", value)
        assert "--early_exit out" in fails(2, "predict", trained.folder, "a.jpg", "--early_exit", value)


def test_what_a_calibration_tells_is_refused(trained, table, fails):
    asked = ("--unknown", table.parent), ("--priors", table)
    for command, *inputs in (("evaluate",), ("predict", "a.jpg")):
        for name, value in asked if command == "evaluate" else asked[1:]:
            line = fails(2, command, trained.folder, *inputs, name, value, "--device", "cpu")
            assert f"{name} " in line
            assert "multi_label" in line
            assert "run `ramstrans calibrate" not in line


def test_commands_that_know_one_label_only_refuse(trained, table, tmp_path, fails):
    several = ("--data.multi_label", "true")
    assert "--model finds images whose one label" in fails(
        2, "data", "check", table, *several, "--model", trained.folder
    )
    assert "shards hold one label" in fails(2, "data", "shard", table, tmp_path / "out", *several)
    assert "--search compares top-1" in fails(2, "plan", table, *several, "--search", "2")
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        f"data: {{x: {{root: {table}, multi_label: true}}}}\nmethods: {{plain: {{}}, rams: {{}}}}\n"
    )
    assert "compare tests top-1" in fails(2, "compare", plan, "--output", tmp_path / "compared")


def test_data_check_and_its_table_keep_several_labels(table, tmp_path, capsys):
    arguments = [
        "data",
        "check",
        str(table),
        "--data.multi_label",
        "true",
        "--write",
        str(tmp_path / "clean.csv"),
    ]
    assert main([*arguments, "--leave_out", "unreadable"]) in (0, 3)
    images = read_table(tmp_path / "clean.csv", multi_label=True)
    assert len(images.records) == 48
    before = {record.path.name: record.labels for record in read_table(table, multi_label=True).records}
    assert {record.path.name: record.labels for record in images.records} == before


def test_json_of_one_label_is_as_it_was():
    assert "present" not in to_json(Prediction(None))

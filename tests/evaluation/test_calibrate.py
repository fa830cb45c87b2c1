"""`ramstrans calibrate`, and what `train`, `evaluate` and `predict` make of it, on a tiny run."""

import csv
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ramstrans.calibration.answers import answers
from ramstrans.calibration.fitted import (
    ARRAYS_FILE,
    CALIBRATION_FILE,
    load_calibration,
    save_calibration,
)
from ramstrans.cli import main
from ramstrans.evaluation.calibrate import all_scales, calibrate_run, linear_head
from ramstrans.evaluation.config import CalibrationConfig
from ramstrans.evaluation.images import spread
from ramstrans.inference.predictor import Predictor
from ramstrans.saved.metadata import load_metadata
from ramstrans.saved.model import load_model
from ramstrans.training.run import prepare, train
from tests.evaluation.builders import pixels
from tests.tiny import tiny_model, tiny_run

pytestmark = pytest.mark.slow

SPLITS = {"train": 5, "val": 8, "test": 3}
NAMES = ("Auk", "Bee_eater", "Coot", "Dunlin", "Egret")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """5 classes of stripes, told by their number, with noise; 8 validation images of each."""
    root, rng = tmp_path_factory.mktemp("data") / "stripes", np.random.default_rng(0)
    for label, name in enumerate(NAMES):
        for split, count in SPLITS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                draw(folder / f"{index}.png", label, rng)
    return root


def draw(path, label, rng):
    rows = 128 + 60 * np.sin(np.arange(48) * (label + 1) / 4 + rng.uniform(0, 3))
    image = rows[:, None, None] + rng.normal(0, 40, (48, 40, 3))
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)


def run_of(data, **fields):
    more = {"data": {"hold_out_classes": 2, "val_fraction": 0.1}} | fields
    return tiny_run(data, "folder", **more)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run on three of the classes; its folder and report."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, train(prepare(run_of(data)), folder)


@pytest.fixture
def copy(run, tmp_path):
    """The run folder, to be changed."""
    shutil.copytree(run[0], tmp_path / "run")
    return tmp_path / "run"


def calibrate(folder, *arguments):
    return main(["calibrate", str(folder), "--device", "cpu", *map(str, arguments)])


def test_a_run_with_validation_images_is_calibrated(run):
    folder, report = run
    fitted = load_calibration(folder)
    assert (fitted.fitted_on, fitted.num_images, len(fitted.scales), len(fitted.fused)) == ("val", 24, 2, 2)
    assert len(report["classes"]) == 3
    calibration, unknown, sets = (report[key] for key in ("calibration", "unknown", "sets"))
    assert calibration["fused"]["temperature"] == fitted.fused[1].temperature
    assert calibration["fused"]["before"]["ece"] == report["fused"]["ece"]
    assert len(calibration["scales"]) == 2
    assert (unknown["asked"], [entry["name"] for entry in unknown["images"]]) == (5, ["2 classes held out"])
    assert unknown["images"][0]["num_images"] == 6
    assert (sets["method"], sets["coverage"], list(sets["methods"])) == ("lac", 95, ["lac", "aps", "raps"])
    page = (folder / "report.md").read_text()
    for heading in ("## Calibration", "## Unknown", "## Prediction sets", "reliability.png"):
        assert heading in page
    assert pixels(folder / "reliability.png").std() > 0


def test_weights_and_accuracies_are_those_without(data, run, tmp_path, no_pictures):
    folder, report = run
    plain = train(prepare(run_of(data, calibrate=False)), tmp_path / "plain")
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "plain/model.safetensors").read_bytes()
    for key in ("scales", "fused", "regions", "classes", "confused", "zoom_gain"):
        assert plain[key] == report[key], key
    assert not {"calibration", "unknown", "sets"} & plain.keys()
    assert not (tmp_path / "plain" / CALIBRATION_FILE).exists()


def test_without_validation_images_nothing_is_calibrated(birds, tmp_path, caplog, no_pictures):
    with caplog.at_level("INFO"):
        report = train(prepare(tiny_run(birds, data={"val_fraction": 0.0})), tmp_path / "run")
    lines = [line for line in caplog.messages if "nothing is calibrated" in line]
    assert len(lines) == 1
    assert "there are no validation images" in lines[0]
    assert "calibration" not in report


def test_too_few_validation_images_are_counted(trained):
    assert not (trained.folder / CALIBRATION_FILE).exists()  # 3 of them


def test_the_command_fits_the_same(copy, capsys):
    before = load_calibration(copy)
    (copy / CALIBRATION_FILE).unlink()
    assert calibrate(copy) == 0
    again = load_calibration(copy)
    assert again.scales == pytest.approx(before.scales, rel=1e-4)
    assert again.fused[1].unknown.score == before.fused[1].unknown.score
    assert again.fused[1].sets.lac == pytest.approx(before.fused[1].sets.lac, abs=1e-4)
    printed = capsys.readouterr().out
    assert "all together" in printed
    assert "max_probability" in printed


def test_evaluate_measures_it(run, data, tmp_path, no_pictures, capsys):
    folder, report = run
    other = tmp_path / "other"
    other.mkdir()
    draw(other / "a.png", 9, np.random.default_rng(7))
    arguments = ["--unknown", str(other), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["evaluate", str(folder), *arguments]) == 0
    again = json.loads((tmp_path / "out/report.json").read_text())
    assert again["fused"]["top1"] == report["fused"]["top1"]
    assert again["sets"]["methods"]["lac"]["reached"] == report["sets"]["methods"]["lac"]["reached"]
    assert [entry["name"] for entry in again["unknown"]["images"]] == ["2 classes held out", str(other)]
    printed = capsys.readouterr().out
    assert "Calibration: probabilities are off by" in printed
    assert "Prediction sets (LAC)" in printed


def test_predictions_are_calibrated(run, data, tmp_path, capsys):
    folder, _ = run
    image = data / "test" / "Auk" / "0.png"
    predictor = Predictor.load(folder, "cpu")
    plain = Predictor(load_model(folder, "cpu"))(image, top_k=3)
    assert (plain.unknown, plain.unknown_score, plain.prediction_set) == (None, None, None)
    found = predictor(image, top_k=3)
    assert found.labels == plain.labels
    order = [predictor.class_names.index(name) for name in plain.labels]
    fused = np.zeros((1, 3))
    fused[0, order] = plain.probabilities
    rule = predictor.calibration.fused[1]
    given = answers(without_unknown(predictor.calibration), fused)
    assert found.probabilities == pytest.approx(given.probabilities[0][order], abs=1e-5)
    assert found.prediction_set == tuple(predictor.class_names[label] for label in given.set_of(0))
    assert isinstance(found.unknown, bool)
    assert found.unknown == (found.unknown_score > rule.unknown.threshold)
    assert main(["predict", str(folder), str(image), "--format", "jsonl", "--device", "cpu"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["set"] == list(found.prediction_set)
    assert row["unknown"] is found.unknown
    assert row["unknown_score"] == pytest.approx(found.unknown_score, abs=1e-5)


def without_unknown(calibration):
    return replace(calibration, fused=tuple(replace(rule, unknown=None) for rule in calibration.fused))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_have_the_columns(run, data, tmp_path, suffix):
    output = tmp_path / f"rows.{suffix}"
    arguments = ["--output", str(output), "--device", "cpu"]
    assert main(["predict", str(run[0]), str(data / "test" / "Auk"), *arguments]) == 0
    if suffix == "csv":
        rows = list(csv.DictReader(io.StringIO(output.read_text())))
        assert {row["unknown"] for row in rows} <= {"True", "False"}
    else:
        import pandas

        rows = pandas.read_parquet(output).to_dict("records")
        assert {type(row["unknown"]) for row in rows} == {bool}
    assert len(rows) == 3
    for row in rows:
        assert set(row["set"].split(";")) <= {row["label_1"], row["label_2"], row["label_3"]}
        float(row["unknown_score"])


def test_explain_says_it(run, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", str(run[0]), str(data / "test/Auk/0.png"), "--device", "cpu"]) == 0
    values = json.loads((tmp_path / "0-explained.json").read_text())
    assert values["set"]
    printed = capsys.readouterr().out
    assert f"one of {len(values['set'])}: " in printed
    assert ("unknown (" in printed) is values["unknown"]


def test_early_exit_uses_calibrated_confidence(run, data):
    folder, _ = run
    always = Predictor.load(folder, "cpu", early_exit=1e-9)
    image = data / "test" / "Auk" / "0.png"
    found = always(image, top_k=3)
    assert len(found.scales) == 1
    first = Predictor.load(folder, "cpu", num_scales=1)(image, top_k=3)
    assert found.probabilities == pytest.approx(first.probabilities, abs=1e-6)  # the rules for one scale
    assert found.unknown_score == pytest.approx(first.unknown_score, abs=1e-4)
    assert found.prediction_set == first.prediction_set
    confidence = first.probabilities[0]
    for given, count in ((confidence - 1e-4, 1), (confidence + 1e-4, 2)):
        assert len(Predictor.load(folder, "cpu", early_exit=float(given))(image).scales) == count


def test_predictions_with_early_exit_are_those_of_the_report(copy, no_pictures):
    assert load_calibration(copy).fused[0].temperature != 1
    for confidence in (0.3, 0.35, 0.4, 0.5):
        output = copy / f"at-{confidence}"
        words = ["evaluate", str(copy), "--early_exit", str(confidence), "--device", "cpu", "--output"]
        assert main([*words, str(output)]) == 0
        report = json.loads((output / "report.json").read_text())["early_exit"]
        table = pd.read_csv(output / "predictions.csv")
        assert 100 * (table["early_exit_label"] == table["true"]).mean() == pytest.approx(report["top1"])
        shares = [100 * (table["early_exit_scales"] == number).mean() for number in (1, 2)]
        assert shares == pytest.approx(report["exited_at"])


def test_a_confidence_chosen_before_is_chosen_again(copy, no_pictures, fails, data, capsys):
    (copy / CALIBRATION_FILE).rename(copy / "kept.json")
    evaluate = ["evaluate", str(copy), "--early_exit", "auto", "--device", "cpu"]
    assert main([*evaluate, "--output", str(copy / "1")]) == 0
    assert load_metadata(copy).early_exit.is_calibrated is False
    (copy / "kept.json").rename(copy / CALIBRATION_FILE)
    image = data / "test" / "Auk" / "0.png"
    capsys.readouterr()
    line = fails(2, "predict", copy, image, "--early_exit", "auto", "--device", "cpu")
    assert "chosen for uncalibrated probabilities, and the model is calibrated now" in line
    assert calibrate(copy) == 0
    assert load_metadata(copy).early_exit.is_calibrated is True
    assert main(["predict", str(copy), str(image), "--early_exit", "auto", "--device", "cpu"]) == 0


def test_new_weights_remove_it(copy):
    from ramstrans.saved.model import save_model

    model, metadata = load_model(copy, "cpu")
    save_model(copy, model.state_dict(), metadata)
    assert not (copy / CALIBRATION_FILE).exists()
    assert not (copy / ARRAYS_FILE).exists()


def test_other_weights_are_refused(copy, fails, data):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights["encoder.model.head.bias"] += 1
    save_file(weights, copy / "model.safetensors")
    line = fails(2, "predict", copy, data / "test/Auk/0.png", "--device", "cpu")
    assert "was fitted for other weights than those beside it" in line


def test_a_calibration_of_fewer_scales_is_refused(copy, fails, data):
    save_calibration(copy, load_calibration(copy, num_scales=1))
    image = data / "test/Auk/0.png"
    for command in (("predict", copy, image), ("evaluate", copy)):
        line = fails(2, *command, "--num_scales", 2, "--device", "cpu")
        assert "calibration.json was fitted for 1 scale; leave out --num_scales 2" in line
    assert main(["predict", str(copy), str(image), "--num_scales", "1", "--device", "cpu"]) == 0


def test_both_numbers_of_looks_of_calcrop_are_calibrated(data, tmp_path, monkeypatch, capsys, no_pictures):
    folder, image = tmp_path / "run", str(data / "test/Auk/0.png")
    train(prepare(run_of(data, model={"method": "calcrop"})), folder)
    assert [len(load_calibration(folder, num_scales=count).fused) for count in (1, 2)] == [1, 2]
    capsys.readouterr()
    for words in (["evaluate", str(folder)], ["predict", str(folder), image, "--format", "jsonl"]):
        assert main([*words, "--num_scales", "2", "--device", "cpu"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (len(row["scales"]), bool(row["set"])) == (2, True)
    both = calibrate_run(CalibrationConfig(folder, device="cpu"))
    model, metadata = load_model(folder, "cpu")
    model.num_trained = 1  # as if there were no second look
    monkeypatch.setattr("ramstrans.evaluation.calibrate.load_model", lambda *_: (model, metadata))
    one = calibrate_run(CalibrationConfig(folder, device="cpu"))
    assert both.fitted.calibration.first(1) == one.fitted.calibration
    assert (both.fitted.candidates, both.report) == (one.fitted.candidates, one.report)
    assert both.lines() == one.lines()


def test_scales_that_need_true_boxes_are_calibrated_only_if_they_answer():
    for placement, count in (("found", 2), ("given", 1)):
        model = tiny_model(method="calcrop", region_placement=placement).eval()
        with all_scales(model):
            assert model.num_scales == count
        assert model.num_scales == 1


def test_copies_of_images_that_were_trained_on_are_not_unknown(copy, data, tmp_path, fails):
    for split in ("train", "val"):
        other = tmp_path / split
        other.mkdir()
        draw(other / "new.png", 9, np.random.default_rng(7))
        shutil.copy(data / split / load_metadata(copy).class_names[0] / "1.png", other / "known.png")
        line = fails(3, "evaluate", copy, "--unknown", other, "--device", "cpu")
        assert f"1 image of --unknown {other} is a near-duplicate of images of the model's classes" in line
    elsewhere = data / "test"  # evaluated in place of the run's own
    line = fails(3, "evaluate", copy, elsewhere, "--unknown", other, "--device", "cpu")
    assert "is a near-duplicate of images of the model's classes" in line


@pytest.mark.parametrize("score", ["knn", "vim", "mahalanobis"])
def test_a_score_may_be_named(copy, score):
    assert calibrate(copy, "--score", score, "--set_method", "aps", "--coverage", 0.8, "--reject", 0.2) == 0
    rule = load_calibration(copy).fused[1]
    assert (rule.unknown.score, rule.unknown.chosen_by, rule.unknown.reject) == (score, "name", 0.2)
    assert (rule.sets.method, rule.sets.coverage) == ("aps", 0.8)
    assert (copy / ARRAYS_FILE).exists()


def test_given_unknown_images_choose_the_score(copy, data, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for index in range(5):
        draw(other / f"{index}.png", 9, np.random.default_rng(index))
    assert calibrate(copy, "--unknown", other) == 0
    assert load_calibration(copy).fused[1].unknown.chosen_by == "given unknown images"


def test_another_labelled_set(copy, data, tmp_path):
    """Its images are all taken, and have no validation split."""
    root, rng = tmp_path / "new", np.random.default_rng(3)
    for label, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for index in range(7):
            draw(root / name / f"{index}.png", label, rng)
    assert calibrate(copy, root) == 0
    fitted = load_calibration(copy)
    assert (fitted.fitted_on, fitted.num_images) == (str(root), 21)


def test_bad_input_is_told(copy, data, tmp_path, fails):
    line = fails(3, "calibrate", copy, "--per_class", "true", "--device", "cpu")
    assert "needs 19 images of each class for --coverage 0.95, and 3 of 3 classes have fewer" in line
    line = fails(3, "calibrate", copy, "--coverage", "0.99", "--device", "cpu")
    assert "24 images cannot tell --coverage 0.99 and --reject 0.05: 99 are needed" in line
    line = fails(2, "calibrate", copy, "--reject", "0", "--device", "cpu")
    assert "--reject is 0.0; give a number in (0, 1), e.g. 0.05" in line
    line = fails(2, "calibrate", copy, "--coverage", "95", "--device", "cpu")
    assert "--coverage is 95.0; give a number in (0, 1), e.g. 0.95" in line
    line = fails(3, "calibrate", copy, "--unknown", tmp_path / "nowhere", "--device", "cpu")
    assert line.endswith(
        f"--unknown {tmp_path}/nowhere is not a folder; give one of images of no class of the model"
    )
    known = load_metadata(copy).class_names
    copies, named = tmp_path / "copies", tmp_path / "named"
    named.mkdir()
    shutil.copytree(data / "val" / known[0], named / known[0])
    line = fails(3, "calibrate", copy, "--unknown", named, "--device", "cpu")
    assert f"holds folders of the model's own classes: '{known[0]}'" in line
    shutil.copytree(data / "val" / known[0], copies)
    line = fails(3, "calibrate", copy, "--unknown", copies, "--device", "cpu")
    assert "are near-duplicates of images of the model's classes" in line
    (tmp_path / "empty").mkdir()
    line = fails(3, "calibrate", copy, "--unknown", tmp_path / "empty", "--device", "cpu")
    assert "has no images" in line
    line = fails(3, "calibrate", copy, data / "test", "--device", "cpu")
    assert "are test images of the run, and nothing is calibrated on those" in line


def test_a_run_without_validation_images_is_told(trained, fails, tmp_path, birds):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["training"]["run"]["data"]["val_fraction"] = 0.0
    (folder / "config.json").write_text(json.dumps(config))
    line = fails(3, "calibrate", folder, "--device", "cpu")
    assert "the run held out no validation images, and nothing is calibrated on test images" in line
    line = fails(2, "evaluate", folder, "--unknown", birds, "--device", "cpu")
    assert "is not calibrated; run `ramstrans calibrate" in line


def test_the_head_that_vim_needs():
    model = tiny_model(num_classes=5)
    weight, bias = linear_head(model)
    assert (weight.shape, bias.shape) == ((5, 24), (5,))
    model.encoder.model.head = torch.nn.Sequential(torch.nn.Linear(24, 5))
    assert linear_head(model) is None


def test_few_training_images_are_all_compared_with(data):
    images = prepare(run_of(data)).images.of_split("train")
    assert spread(images, 5) == images
    assert len(spread(images, 2)) == 6

"""Cross-validation: the summary by hand, and whole runs that stop and go on."""

import dataclasses
import json
import signal
from types import SimpleNamespace

import pytest
import yaml

from ramstrans.cli import main
from ramstrans.errors import StoppedError, UsageError
from ramstrans.training import folds as module
from ramstrans.training.folds import (
    cross_validate,
    headline,
    html_page,
    markdown_page,
    mean_interval,
    pooled_classes,
    summarize,
)
from tests.tiny import tiny_run


def metrics(top1, top5=100.0):
    return {"top1": top1, "top5": top5}


def fold(num_images, top1_scales, top1, classes, epoch=1):
    return {
        "num_images": num_images,
        "scales": [metrics(value) for value in top1_scales],
        "fused": metrics(top1),
        "classes": [
            {"name": name, "num_images": count, "accuracy": accuracy} for name, count, accuracy in classes
        ],
        "epoch": epoch,
        "seconds": 3.0,
        "warnings": ["odd"] if epoch == 2 else [],
    }


REPORTS = [
    fold(4, [50.0, 75.0], 75.0, [("crow", 2, 50.0), ("wren", 2, 100.0), ("tit", 0, None)]),
    fold(6, [50.0, 100.0], 50.0, [("crow", 3, 100 / 3), ("wren", 3, 200 / 3), ("tit", 0, None)], epoch=2),
]


def test_the_summary_by_hand():
    summary = summarize(REPORTS)
    assert summary["num_images"] == 10
    assert summary["fused"]["top1"] == 60  # 3 of 4 and 3 of 6
    assert summary["fused"]["top1_interval"] == pytest.approx([31.3, 83.2], abs=0.1)
    assert summary["fused"]["mean_class_accuracy"] == pytest.approx((40 + 80) / 2)
    assert [scale["top1"] for scale in summary["scales"]] == [50, 90]
    assert summary["mean"]["top1"] == 62.5
    assert summary["mean"]["sd"] == pytest.approx(12.5 * 2**0.5)
    assert [row["top1"] for row in summary["folds"]] == [75, 50]
    assert summary["warnings"] == ["fold 2: odd"]
    crow, _, tit = pooled_classes(REPORTS)
    assert (crow["name"], crow["num_images"], crow["accuracy"]) == ("crow", 5, 40)
    assert crow["interval"] == pytest.approx([11.8, 76.9], abs=0.1)
    assert crow["precision"] is tit["accuracy"] is None  # reports of an older version have no precision


def test_the_precision_over_all_folds():
    reports = [
        {"classes": [entry | {"num_predicted": taken}]}
        for entry, taken in zip((REPORTS[0]["classes"][0], REPORTS[1]["classes"][0]), (1, 7), strict=True)
    ]
    assert pooled_classes(reports)[0]["precision"] == 100 * 2 / 8


def test_the_page_as_html_lists_every_class_the_least_accurate_first():
    report = summarize(REPORTS) | {"command": "ramstrans train <folder>"}
    page = html_page(report)
    assert "<title>Cross-validation: 2 folds of 10 images</title>" in page
    assert headline(report) in page
    assert page.index(">crow</th>") < page.index(">wren</th>")
    assert "ramstrans train &lt;folder&gt;" in page
    assert '<a href="fold_2/report.html">fold 2</a>' in page
    assert "<li>fold 2: odd.</li>" in page


def test_the_interval_is_wider_than_that_of_independent_runs():
    low, high = mean_interval([80, 84, 86, 88, 82])
    independent = 2.776 * 10**0.5 / 5**0.5
    assert (high - low) / 2 == pytest.approx(1.5 * independent, rel=1e-3)  # sqrt((1/5 + 1/4) / (1/5)) = 1.5
    assert mean_interval([100, 100, 100]) == (100, 100)


def test_the_page():
    page = markdown_page(summarize(REPORTS) | {"command": "ramstrans train"})
    assert "Top-1, mean of 2 folds: 62.5 % (standard deviation 17.7, 95 % interval 0.0 - 100.0)" in page
    assert "each by the run that has not seen it: 60.0 % (31.3 - 83.2)" in page
    assert "| 2 | 6 | 2 | 50.0 | 100.0 | 50.0 |" in page
    assert "[fold 2](fold_2/report.md)" in page
    assert page.index("| crow | 40.0 % | 5 |") < page.index("| wren | 80.0 % | 5 |")
    assert "tit" not in page


@pytest.fixture
def cross_validated(colors, tmp_path):
    """A config of three folds of the twelve training images."""
    data = {"folds": 3, "val_fraction": 0.25}
    return tiny_run(colors / "train", "folder", data=data, training={"max_steps": 2}, output=tmp_path / "cv")


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def test_a_run_for_each_fold_and_one_report(cross_validated, tmp_path, no_pictures):
    report, output = cross_validate(cross_validated, command="ramstrans train")
    assert output == tmp_path / "cv"
    assert report == json.loads((output / "report.json").read_text())
    assert report.keys() >= {"folds", "mean", "scales", "fused", "classes", "num_images", "config", "command"}
    assert report["num_images"] == 12
    assert [row["num_images"] for row in report["folds"]] == [4, 4, 4]
    right = 0
    for number in (1, 2, 3):
        of_fold = json.loads((output / f"fold_{number}" / "report.json").read_text())
        right += of_fold["fused"]["top1"] * of_fold["num_images"] / 100
        assert of_fold["config"]["data"]["fold"] == number
        assert of_fold["config"]["output"] == str(output / f"fold_{number}")
    assert report["fused"]["top1"] == pytest.approx(100 * right / 12)
    with pytest.raises(ValueError, match="that run has finished"):
        cross_validate(cross_validated, resumes=True)


def test_a_stopped_one_goes_on_and_ends_as_if_it_had_not(cross_validated, tmp_path, no_pictures, monkeypatch):
    whole, output = cross_validate(cross_validated)
    expected = contents(output)
    output.rename(tmp_path / "whole")
    train, calls = module.train, []

    def stops(prepared, folder, **options):
        calls.append(folder.name)
        if len(calls) == 2:
            raise StoppedError(f"stopped; go on with `ramstrans train --resume {folder}`", signal.SIGTERM)
        return train(prepared, folder, **options)

    monkeypatch.setattr(module, "train", stops)
    with pytest.raises(StoppedError, match=f"fold 2 of 3: stopped; .* --resume {output}`") as caught:
        cross_validate(cross_validated)
    assert caught.value.exit_code == 143
    assert not (output / "report.json").exists()
    again, _ = cross_validate(cross_validated, resumes=True)
    assert calls == ["fold_1", "fold_2", "fold_2", "fold_3"]
    assert list(contents(output).values()) == list(expected.values())
    assert again["fused"] == whole["fused"]


def test_more_epochs_are_those_of_the_next_resume_too(cross_validated, tmp_path, no_pictures, monkeypatch):
    cross_validate(cross_validated)
    longer = dataclasses.replace(cross_validated.training, max_steps=3)
    longer = dataclasses.replace(cross_validated, training=longer)

    def stops(*_, **__):
        raise StoppedError("stopped", signal.SIGTERM)

    monkeypatch.setattr(module, "train", stops)
    with pytest.raises(StoppedError):
        cross_validate(longer, resumes=True)
    assert yaml.safe_load((tmp_path / "cv" / "run.yaml").read_text())["training"]["max_steps"] == 3


def test_several_processes_are_refused(cross_validated, monkeypatch):
    monkeypatch.setattr(module, "start_processes", lambda _config: SimpleNamespace(num_processes=2))
    with pytest.raises(UsageError, match=r"one run per fold: --data\.fold 1 \.\.\. 3"):
        cross_validate(cross_validated)


def test_the_command_line(tiny, colors, tmp_path, capsys, no_pictures):
    data = ["--data.name", "folder", "--data.root", str(colors / "train"), "--data.folds", "2"]
    line = ["train", "--config", str(tiny), *data, "--output", str(tmp_path / "cv")]
    assert main([*line, "--dry_run", "true"]) == 0
    assert not (tmp_path / "cv").exists()
    outline = "2 folds: as many runs of this length, each tested on its own part, about "
    assert outline in capsys.readouterr().err
    assert main(line) == 0
    printed = capsys.readouterr()
    assert printed.err.count(outline) == 1
    assert "mean of 2 folds" in printed.out
    assert "fold 2 of 2" in printed.err
    assert (tmp_path / "cv" / "fold_2" / "model.safetensors").is_file()
    assert main(["predict", str(tmp_path / "cv"), str(colors)]) == 1
    assert f"is a cross-validation; give one of its runs, e.g. {tmp_path / 'cv' / 'fold_1'}" in (
        capsys.readouterr().err
    )
    assert main(line) == 2
    assert "--overwrite true" in capsys.readouterr().err


def test_a_class_too_small_is_told_before_anything_is_written(tiny, colors, tmp_path, fails):
    for path in sorted((colors / "train").glob("*/0.png")):
        copy = tmp_path / "few" / path.parent.name
        copy.mkdir(parents=True)
        (copy / "0.png").write_bytes(path.read_bytes())
    data = ["--data.name", "folder", "--data.root", tmp_path / "few", "--data.folds", "2"]
    line = fails(3, "train", "--config", tiny, *data, "--output", tmp_path / "cv")
    assert "data.folds needs two images or groups of each class" in line
    assert not (tmp_path / "cv").exists()

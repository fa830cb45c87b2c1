"""`ramstrans evaluate`, from its arguments to its files; early exit through `predict` too."""

import json
import shutil

import pytest

from ramstrans.cli import main


def test_evaluate(trained, tmp_path, capsys, no_pictures):
    output = tmp_path / "out"
    assert main(["evaluate", str(trained.folder), "--output", str(output), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert "6 images of the test split" in printed.out
    assert f"report: {output / 'report.html'}" in printed.err
    report = json.loads((output / "report.json").read_text())
    assert report["fused"]["top1"] == trained.report["fused"]["top1"]


def test_evaluate_writes_into_the_run_by_default(trained, capsys, no_pictures):
    before = (trained.folder / "report.json").read_bytes()
    assert main(["evaluate", str(trained.folder), "--split", "val", "--device", "cpu"]) == 0
    assert json.loads((trained.folder / "evaluation-val" / "report.json").read_text())["num_images"] == 3
    assert (trained.folder / "report.json").read_bytes() == before
    shutil.rmtree(trained.folder / "evaluation-val")


def test_a_new_set_is_evaluated_whole_into_a_folder_of_its_name(
    trained, birds, tmp_path, capsys, no_pictures
):
    from ramstrans.data.datasets.cub import read_cub

    run, images = tmp_path / "run", read_cub(birds)
    shutil.copytree(trained.folder, run)
    rows = [f"{record.path},{images.class_names[record.label]}" for record in images.records[:5]]
    (tmp_path / "new.csv").write_text("\n".join(["path,label", *rows, f"{birds}/odd.jpg,", ""]))
    assert main(["evaluate", str(run), "--data.root", str(tmp_path / "new.csv"), "--device", "cpu"]) == 0
    assert "1 of 6 rows have no label and are left out" in capsys.readouterr().err
    assert json.loads((run / "evaluation-new" / "report.json").read_text())["num_images"] == 5


def test_early_exit_is_chosen_then_used(trained, colors, tmp_path, capsys, no_pictures):
    run = tmp_path / "run"
    shutil.copytree(trained.folder, run)
    image = str(colors / "test" / "Azure_tit" / "0.png")
    line = ["predict", str(run), image, "--format", "jsonl", "--device", "cpu", "--early_exit"]
    assert main([*line, "auto"]) == 2
    assert "no confidence was chosen for this model" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--early_exit", "auto", "--device", "cpu"]) == 0
    assert "Early exit at confidence" in capsys.readouterr().out
    assert main([*line, "auto"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == image
    for confidence, num_scales_used in (("1e-6", 1), ("1.0", 2)):
        assert main([*line, confidence]) == 0
        assert len(json.loads(capsys.readouterr().out)["scales"]) == num_scales_used


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("0", "is 0.0; give more"),
        ("-1", "is -1.0; give more"),
        ("90", "is 90.0, which no image reaches; give at most 1"),
        ("now", "early_exit"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_early_exit_that_is_not_a_confidence(trained, fails, command, value, reason):
    inputs = ["bird.jpg"] if command == "predict" else []
    line = fails(2, command, trained.folder, *inputs, "--early_exit", value, "--device", "cpu")
    assert reason in line


def test_a_folder_of_something_else_is_not_written_into(trained, tmp_path, fails):
    (tmp_path / "thesis.tex").touch()
    command = ["evaluate", trained.folder, "--output", tmp_path]
    assert "exists; give another, or --overwrite true" in fails(2, *command)
    assert "has no report.json, so it is not this command's" in fails(2, *command, "--overwrite", "true")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

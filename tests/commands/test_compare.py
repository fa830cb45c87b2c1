"""`ramstrans compare`: real runs of tiny models, and every error before the first of them."""

import dataclasses
import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from ramstrans.cli import main
from ramstrans.commands import train
from ramstrans.commands.compare import difference
from ramstrans.commands.configs import given_to_recipe
from ramstrans.compare.plan import read_plan
from ramstrans.compare.runs import Folders, evaluate_command, train_command
from ramstrans.evaluation.report import write as evaluating
from ramstrans.training.config import RunConfig, TrainingConfig
from tests import processes


def write_plan(folder, tiny, **changes):
    """A plan of two methods and two seeds of the tiny run."""
    values = {
        "data": {"birds": {"val_fraction": 0.25}},
        "methods": {"plain": {"model.num_scales": 1}, "two": {"model.num_scales": 2}},
        "options": {"config": str(tiny)},
        "seeds": [0, 1],
    }
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def make_runs(plan, output):
    """Train what `compare` would, in this process."""
    folders = Folders(output)
    for run in read_plan(plan).runs:
        assert main(train_command(run, folders.run(run))) == 0


@pytest.fixture(scope="module")
def compared(tiny, tmp_path_factory):
    """A plan and the folder of its finished runs."""
    from ramstrans.evaluation.report import write

    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plot_curves", "plot_gallery", "plot_confusion", "report_page", "labels_html"):
            patch.setattr(write, name, lambda *_, **__: "")
        plan = write_plan(folder, tiny)
        make_runs(plan, folder / "out")
    (folder / "out" / "plan.yaml").touch()
    return plan, folder / "out"


def compare(plan, output, *options):
    return main(["compare", str(plan), "--output", str(output), *map(str, options)])


def test_finished_runs_are_summed_up(compared, capsys):
    plan, output = compared
    assert compare(plan, output) == 0
    printed = capsys.readouterr()
    assert "birds: 6 test images" in printed.out
    assert "two and plain (" in printed.out
    assert "Two seeds say very little" in printed.out
    assert "4 runs, 4 done, 0 to train" in printed.err
    found = json.loads((output / "compare.json").read_text())
    by_name = {run["name"]: run["top1"] for run in found["runs"]}
    for entry in found["results"]:
        values = [by_name[f"{entry['contender']}__birds__seed{seed}"] for seed in (0, 1)]
        assert entry["fused"]["values"] == pytest.approx(values)
        assert entry["fused"]["mean"] == pytest.approx(sum(values) / 2)
    assert found["results"][0]["gmacs"] < found["results"][1]["gmacs"]
    assert (output / "compare.html").is_file()
    assert (output / "plan.yaml").read_text() == plan.read_text()


LOOKS = {
    "two": {"model.num_scales": 2},
    "one_look": {"of": "two", "num_scales": 1},
    "exit": {"of": "two", "early_exit": "auto"},
}


@pytest.fixture(scope="module")
def looked(compared, tiny, tmp_path_factory):
    """The same runs, evaluated in other ways, and their regions judged."""
    folder = tmp_path_factory.mktemp("looks")
    plan, output = write_plan(folder, tiny, methods=LOOKS, regions=3), folder / "out"
    shutil.copytree(compared[1], output)
    folders, read = Folders(output), read_plan(plan)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plot_gallery", "plot_confusion", "plot_faithfulness", "plot_exit", "report_page"):
            patch.setattr(evaluating, name, lambda *_, **__: "")
        for run in (*read.runs, *read.region_runs):
            if run.of is not None:
                assert main(evaluate_command(run, folders.run(run.of), folders.run(run))) == 0
    return plan, output


def test_methods_that_evaluate_others_are_rows_of_their_own(looked, capsys):
    plan, output = looked
    assert compare(plan, output) == 0
    assert "8 runs, 8 done, 0 to train" in capsys.readouterr().err  # regions are judged by two of them
    found = json.loads((output / "compare.json").read_text())
    by_name = {entry["contender"]: entry for entry in found["results"]}
    two, one, exits = (by_name[name] for name in ("two", "one_look", "exit"))
    assert one["fused"]["values"] == pytest.approx(two["scales"][0]["values"])
    reports = [
        json.loads((output / "runs" / f"exit__birds__seed{seed}" / "report.json").read_text())["early_exit"]
        for seed in (0, 1)
    ]
    assert exits["fused"]["values"] == pytest.approx([report["top1"] for report in reports])
    assert one["gmacs"] < exits["gmacs"] <= two["gmacs"]
    assert one["regions_judged"] is None
    assert two["regions_judged"]["num_images"] == 3
    assert "one_look: two with evaluate --num_scales 1, not" in (output / "compare.html").read_text()


def test_other_options_of_evaluate_are_an_error(looked, tiny, tmp_path, fails):
    _, output = looked
    wrong = write_plan(tmp_path, tiny, methods=LOOKS | {"one_look": {"of": "two", "precision": "bf16"}})
    line = fails(2, "compare", wrong, "--output", output)
    assert "one_look__birds__seed0 was made with --num_scales=1, and the plan has --precision=bf16" in line
    wrong = write_plan(tmp_path, tiny, methods=LOOKS | {"plain": {"of": "two", "num_scales": 1}})
    line = fails(2, "compare", wrong, "--output", output)
    assert "plain__birds__seed0 holds a run that was trained, and the plan evaluates one there" in line
    wrong = write_plan(tmp_path, tiny, methods=LOOKS, regions="all")
    assert "was made with --regions=3, and the plan has --regions=all" in fails(
        2, "compare", wrong, "--output", output
    )


def test_what_can_be_evaluated_is_listed_once_it_is_trained(looked, tiny, tmp_path, capsys):
    _, output = looked
    more = write_plan(tmp_path, tiny, methods=LOOKS, seeds=[2])
    for name in ("two", "one_look"):
        assert compare(more, output, "--list", "true", "--only", f"{name}__birds__seed2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["two__birds__seed2"]


def test_scales_of_predictions_are_those_of_the_report(compared):
    """What is read of predictions.csv is what report.json counted."""
    plan, output = compared
    assert compare(plan, output, "--jobs", 0) == 0
    for entry in json.loads((output / "compare.json").read_text())["results"]:
        for number, scale in enumerate(entry["scales"]):
            reports = [
                json.loads(
                    (output / "runs" / f"{entry['contender']}__birds__seed{seed}" / "report.json").read_text()
                )
                for seed in (0, 1)
            ]
            assert scale["values"] == pytest.approx([report["scales"][number]["top1"] for report in reports])


def test_other_options_than_those_of_finished_runs_are_an_error(compared, tiny, tmp_path, fails):
    _, output = compared
    wrong = write_plan(tmp_path, tiny, options={"config": str(tiny), "training.lr": 0.5})
    line = fails(2, "compare", wrong, "--output", output)
    assert (
        "plain__birds__seed0 was made with training.lr 0.03, and the plan has 0.5: put the plan back" in line
    )
    fewer = write_plan(tmp_path, tiny, options={"config": str(tiny), "training.max_steps": 1})
    assert "was made with training.max_steps 2, and the plan has 1" in fails(
        2, "compare", fewer, "--output", output
    )
    where = write_plan(tmp_path, tiny, options={"config": str(tiny), "data.read_timeout": 9, "device": "cpu"})
    assert compare(where, output, "--jobs", 0) == 0


def test_a_precision_that_the_recipe_chose_may_be_of_another_machine(tmp_path):
    expected = RunConfig()
    saved = dataclasses.replace(expected, training=TrainingConfig(precision="bf16"))
    assert difference(expected, saved) == ("training.precision", "fp32", "bf16")
    assert difference(expected, saved, ("training.precision",)) is None
    (tmp_path / "crow").mkdir()
    words = [f"--data.root={tmp_path}", "--data.name=folder", "--model.backbone=deit_tiny_patch16_224"]
    assert "training.precision" not in given_to_recipe(words, train.add_options)
    assert "training.precision" in given_to_recipe([*words, "--training.precision=bf16"], train.add_options)
    assert given_to_recipe([*words, "--recipe=none"], train.add_options) is None


def test_an_option_that_is_no_more_in_the_plan_is_an_error(compared, tmp_path, fails):
    """A run that was made with it is not one of the plan, whose value is the default, here none."""
    plan, output = compared
    shutil.copytree(output, tmp_path / "out")
    options = tmp_path / "out" / "runs" / "two__birds__seed1" / "run.yaml"
    options.write_text(options.read_text().replace("max_aspect: null", "max_aspect: 1.5"))
    line = fails(2, "compare", plan, "--output", tmp_path / "out")
    assert "two__birds__seed1 was made with model.max_aspect 1.5, and the plan has None: put the" in line


def test_runs_that_are_not_in_the_plan_are_told(compared, tiny, tmp_path, capsys):
    _, output = compared
    assert compare(write_plan(tmp_path, tiny, seeds=[1]), output, "--jobs", 0) == 0
    said = capsys.readouterr()
    assert "2 runs in" in said.err
    assert "not of this plan, and left out: plain__birds__seed0; two__birds__seed0" in said.err
    assert "One seed only" in said.out


def test_the_commands_of_what_is_left(compared, tiny, tmp_path, capsys):
    plan, output = compared
    assert compare(plan, output, "--list", "true") == 0
    said = capsys.readouterr()
    assert (said.out, "nothing is left to run" in said.err) == ("", True)
    more = write_plan(tmp_path, tiny, seeds=[0, 1, 2])
    assert compare(more, output, "--list", "true") == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [line[-1] for line in lines] == ["plain__birds__seed2", "two__birds__seed2"]
    assert lines[0][:4] == [sys.executable, "-m", "ramstrans", "compare"]
    assert main([*lines[0][3:-1], "plain__birds__seed0"]) == 0  # done: nothing to do


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        (
            {"methods": {"a": {"training.lrr": 1}}},
            2,
            "a on birds: --training.lrr is not an option of `ramstrans train`",
        ),
        ({"methods": {"a": {"lr": 1}}}, 2, "did you mean --training.lr?"),
        (
            {"methods": {"a": {"training.lr": "fast"}}},
            2,
            "a on birds: --training.lr is 'fast'; give a number",
        ),
        ({"methods": {"a": {"training.lr": -1}}}, 2, "a on birds: training.lr is -1"),
        ({"methods": {"a": {"model": {"saliency": "x"}}}}, 2, "--model.saliency is 'x'; give auto"),
        ({"data": {"a": "nowhere"}}, 3, "plain on a: nowhere does not exist"),
        ({"methods": {"a": {"model.weights": "nowhere.pth"}}}, 1, "nowhere.pth does not exist; give 'timm'"),
        ({"data": {"a": {"name": "folder"}}, "options": {}}, 2, "no --data.root was given"),
        ({"options": {"data.folds": 3}}, 2, "data.folds makes several runs of one"),
        (
            {"options": {"config": "labels.yaml"}, "data": {"a": {"val_fraction": 0.2}}},
            2,
            "compare tests top-1, which images of several labels",
        ),
        (
            {"methods": {"plain": {}, "a": {"config": "other.yaml"}}},
            2,
            "has data.name cub, and a toybirds: which images are tested must be the same for all",
        ),
        ({"seeds": []}, 2, "plan.yaml: seeds is []"),
        (
            {"methods": {"two": {}, "a": {"of": "two", "num_scales": 3}}},
            2,
            "a, two evaluated in another way: num_scales is 3, and 2 scales are trained",
        ),
        (
            {"methods": {"crops": {"method": "calcrop"}, "a": {"of": "crops", "fusion": "fitted"}}},
            2,
            "early_exit and fusion are about several scales, and there is one",
        ),
        (
            {"methods": {"one": {"model.num_scales": 1}, "a": {"of": "one", "early_exit": 0.9}}},
            2,
            "early_exit and fusion are about several scales, and there is one",
        ),
        (
            {"methods": {"two": {}, "a": {"of": "two", "early_exit": "auto", "num_scales": 1}}},
            2,
            "--early_exit auto chooses a confidence for all scales",
        ),
        ({"methods": {"two": {}, "a": {"of": "two", "num_scales": "x"}}}, 2, "--num_scales is 'x'"),
    ],
)
def test_errors_of_a_plan_come_before_any_training(changes, code, said, tiny, tmp_path, fails, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = write_plan(tmp_path, tiny, **changes)
    (tmp_path / "labels.yaml").write_text("data: {name: table, root: set.csv, multi_label: true}\n")
    (tmp_path / "set.csv").touch()
    (tmp_path / "other.yaml").write_text("data: {test_fraction: 0.5}\n")
    assert said in fails(code, "compare", plan, "--output", "out")
    assert not (tmp_path / "out").exists()


def test_both_looks_of_crops_in_training_may_be_a_row(tiny, tmp_path, capsys):
    methods = {"crops": {"method": "calcrop"}, "both": {"of": "crops", "num_scales": 2}}
    plan = write_plan(tmp_path, tiny, methods=methods, seeds=[0])
    assert compare(plan, tmp_path / "out", "--list", "true") == 0
    assert "--only crops__birds__seed0" in capsys.readouterr().out  # `both` follows it


def test_errors_of_options(tiny, tmp_path, fails):
    plan = write_plan(tmp_path, tiny)
    said = fails(2, "compare", plan, "--only", "plain__birds__seed3", "--output", tmp_path / "out")
    assert "--only plain__birds__seed3 is not a run of the plan; did you mean plain__birds__seed" in said
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "wren.jpg").touch()
    said = fails(2, "compare", plan, "--output", tmp_path / "photographs")
    assert "has no plan.yaml, so it is not this command's" in said
    assert "none of the 4 runs has finished" in fails(
        1, "compare", plan, "--output", tmp_path / "out", "--jobs", 0
    )


@pytest.mark.slow
def test_whole_in_real_processes(compared, tiny, tmp_path):
    """One run is there, the other fails, is told, and is trained by the same command."""
    plan = write_plan(tmp_path, tiny, seeds=[0])
    (tmp_path / "out" / "runs").mkdir(parents=True)
    (tmp_path / "out" / "plan.yaml").touch()
    made = Path("runs", "plain__birds__seed0")
    shutil.copytree(compared[1] / made, tmp_path / "out" / made)
    (tmp_path / "out" / "runs" / "two__birds__seed0").write_text("in the way")
    line = ("compare", plan, "--output", tmp_path / "out", "--jobs", 2)
    done = processes.run(*line)
    assert done.returncode == 1
    assert "two__birds__seed0 failed after" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("ramstrans: 1 run failed: two__birds__seed0 (")
    assert "failed and is left out" in done.stdout
    (tmp_path / "out" / "runs" / "two__birds__seed0").unlink()
    done = processes.run(*line)
    assert done.returncode == 0, done.stderr
    assert "2 runs, 1 done, 1 to train" in done.stderr
    assert "McNemar, exact" in (tmp_path / "out" / "compare.md").read_text()

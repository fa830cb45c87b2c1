"""`ramstrans compare`: real runs of tiny models, and every error before the first of them."""

import json
import shlex
import sys

import pytest
import yaml

from ramstrans.cli import main
from ramstrans.compare.plan import read_plan
from ramstrans.compare.runs import Folders, train_command
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
    from ramstrans.evaluation import evaluate

    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plot_curves", "plot_gallery", "plot_confusion"):
            patch.setattr(evaluate, name, lambda *_: None)
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
    assert capsys.readouterr().out == ""
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
        ({"data": {"a": {"name": "folder"}}, "options": {}}, 2, "no --data.root was given"),
        ({"options": {"data.folds": 3}}, 2, "data.folds makes several runs of one"),
        ({"seeds": []}, 2, "plan.yaml: seeds is []"),
    ],
)
def test_errors_of_a_plan_come_before_any_training(changes, code, said, tiny, tmp_path, fails, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = write_plan(tmp_path, tiny, **changes)
    assert said in fails(code, "compare", plan, "--output", "out")
    assert not (tmp_path / "out").exists()


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
def test_whole_in_real_processes(tiny, tmp_path):
    """Trained, one of them failing, told, and repaired by the same command."""
    plan = write_plan(tmp_path, tiny, seeds=[0])
    (tmp_path / "out" / "runs").mkdir(parents=True)
    (tmp_path / "out" / "plan.yaml").touch()
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

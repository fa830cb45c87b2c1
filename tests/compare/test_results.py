"""What a comparison shows of made-up runs: sums by hand, tests, missing runs, words, cost."""

import json

import numpy as np
import pandas as pd
import pytest

from ramstrans.bench.flops import macs_by_scale, macs_of
from ramstrans.compare import costs, words
from ramstrans.compare.build import build_results
from ramstrans.compare.costs import Cost, costs_of, is_on_front
from ramstrans.compare.page import blocks_of
from ramstrans.compare.results import JUDGED, answers_of, read_run, summarize
from ramstrans.compare.runs import Folders
from ramstrans.compare.statistics import holm, mcnemar
from ramstrans.errors import DataError
from ramstrans.evaluation.faithfulness import CURVES
from ramstrans.evaluation.report.blocks import markdown_of
from ramstrans.saved.metadata import load_metadata
from tests.compare.builders import finished, plan_of, right, write_finished

COST = Cost(1.0)


def summary(plan, folders, errors=None, cost=None):
    judged = [read_run(plan, run, folders) for run in plan.runs if folders.is_done(run)]
    return summarize(plan, judged, folders, errors or {}, cost or {run.name: COST for run in plan.runs})


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path / "out")


def test_means_by_hand(folders):
    plan = plan_of(seeds=(0, 5))
    answers = {0: [1, 1, 1, 0], 5: [1, 0, 1, 0]}
    for run in plan.runs:
        fused = np.array(answers[run.seed], dtype=bool)
        scales = (fused,) if run.method == "plain" else (~fused, fused)
        write_finished(folders.run(run), fused, scales=scales, seconds=10.0 * (1 + run.seed))
    found = summary(plan, folders)
    plain, two = found["results"]
    assert (plain["contender"], plain["seeds"], plain["num_images"]) == ("plain", [0, 5], 4)
    assert (plain["fused"]["mean"], plain["fused"]["values"]) == (62.5, [75, 50])
    assert plain["fused"]["sd"] == pytest.approx(25 / 2**0.5)
    assert [scale["mean"] for scale in two["scales"]] == [37.5, 62.5]
    assert plain["regions"] == []
    assert two["regions"][0]["scale"] == 1
    assert two["regions"][0]["mean_iou"] == {"mean": 50, "sd": 0}
    assert two["regions"][0]["parts_inside"] == {"mean": None, "sd": None}
    assert plain["training_seconds"]["mean"] == 35
    assert [row["state"] for row in found["runs"]] == ["done"] * 4
    assert found["runs"][1]["top1_scales"] == [25, 75]
    row = found["to_baseline"][0]
    assert (row["first"], row["second"], row["difference"], row["p"]) == ("two", "plain", 0, 1)


def test_tests_are_paired_by_image_and_corrected_by_family(folders):
    plan = plan_of(("a", "b", "c"), seeds=(0,), baseline="b")
    shares = {"a": 0.9, "b": 0.5, "c": 0.7}
    answers = {name: right(share, seed=number) for number, (name, share) in enumerate(shares.items())}
    for run in plan.runs:
        write_finished(folders.run(run), answers[run.method])
    found = summary(plan, folders)
    assert [(row["first"], row["second"]) for row in found["to_baseline"]] == [("a", "b"), ("c", "b")]
    assert [(row["first"], row["second"]) for row in found["pairs"]] == [("b", "a"), ("c", "a"), ("c", "b")]
    for family in (found["to_baseline"], found["pairs"]):
        expected = [mcnemar(answers[row["first"]], answers[row["second"]]) for row in family]
        assert [row["p"] for row in family] == pytest.approx(expected)
        assert [row["p_holm"] for row in family] == pytest.approx(holm(expected))
        assert [row["is_significant"] for row in family] == [p < 0.05 for p in holm(expected)]
    assert found["to_baseline"][0]["test"] == "McNemar, exact"
    assert found["to_baseline"][0]["is_significant"]


def test_families_hold_the_tests_of_all_data_sets(folders):
    plan = plan_of(seeds=(0,), data={"birds": "birds", "dogs": "dogs"})
    finished(folders, plan, {"plain": 0.5, "two": 0.8})
    found = summary(plan, folders)
    assert [row["data"] for row in found["to_baseline"]] == ["birds", "dogs"]
    assert [row["p_holm"] for row in found["to_baseline"]] == pytest.approx(
        holm([row["p"] for row in found["to_baseline"]])
    )


def test_missing_and_failed_runs_are_told(folders):
    plan = plan_of(seeds=(0, 1))
    for run in plan.runs[:3]:
        write_finished(folders.run(run), right(0.5))
    found = summary(plan, folders, {plan.runs[3].name: "out of memory"})
    assert found["results"][1]["missing_seeds"] == [1]
    assert found["runs"][3]["state"] == "failed"
    assert words.missing_in_words(found["runs"]) == [
        "two__birds__seed1 failed and is left out: out of memory"
    ]
    told = words.caveats(found["results"], "plain")
    assert told[0].startswith("One seed only: two on birds.")
    assert "Seeds of the plan that are missing: two on birds: [1]." in told
    missing = summary(plan, folders)["runs"]
    assert words.missing_in_words(missing) == ["1 of 4 runs not there yet: two__birds__seed1"]


def test_a_data_set_without_finished_runs_is_left_out(folders):
    plan = plan_of(data={"birds": {"root": "birds"}, "dogs": {"root": "dogs"}})
    for run in plan.runs:
        if run.data == "birds":
            write_finished(folders.run(run), right(0.5))
    results = build_results(plan, folders, {})
    assert {entry["data"] for entry in results["results"]} == {"birds"}
    assert [row["state"] for row in results["runs"] if row["data"] == "dogs"] == ["missing"] * 4
    assert "4 of 8 runs" in (folders.output / "compare.md").read_text()
    assert [path.name for path in (folders.output / "answers").iterdir()] == ["birds.csv"]


def test_a_baseline_without_runs_is_told(folders):
    plan = plan_of(seeds=(0,), baseline="two")
    write_finished(folders.run(plan.runs[0]), right(0.5))
    found = summary(plan, folders)
    assert found["to_baseline"] == found["pairs"] == []
    assert words.caveats(found["results"], "two")[-1].startswith(
        "The baseline two has no finished run on birds"
    )


def test_other_images_are_refused(folders):
    plan = plan_of(seeds=(0,))
    for run, count in zip(plan.runs, (10, 11), strict=True):
        write_finished(folders.run(run), right(0.5, count))
    with pytest.raises(
        DataError, match="two__birds__seed0 and plain__birds__seed0 were tested on other images"
    ):
        summary(plan, folders)


def test_the_same_images_by_another_name_of_their_folder(folders):
    """A run has the data's root as it was given, one that was evaluated later the absolute one."""
    plan = plan_of(seeds=(0,))
    finished(folders, plan, {"plain": 0.5, "two": 0.5})
    for run, root in zip(plan.runs, ("photographs", "/home/me/photographs"), strict=True):
        path = folders.run(run) / "predictions.csv"
        table = pd.read_csv(path, dtype=str)
        table["path"] = root + "/" + table["path"]
        table.to_csv(path, index=False)
    summary(plan, folders)
    results = [read_run(plan, run, folders) for run in plan.runs]
    assert answers_of(results)["path"].tolist()[:2] == ["000.jpg", "001.jpg"]


def test_an_image_that_is_listed_twice_counts_twice(folders):
    plan = plan_of(seeds=(0,))
    finished(folders, plan, {"plain": 0.5, "two": 0.5})
    for run in plan.runs:
        path = folders.run(run) / "predictions.csv"
        header, first, *rest = path.read_text().splitlines(keepends=True)
        path.write_text("".join([header, first, first, *rest]))
    judged = [read_run(plan, run, folders) for run in plan.runs]
    table = answers_of(judged)
    assert table["path"].duplicated().sum() == 1
    assert table["path"].is_monotonic_increasing
    assert summary(plan, folders)["results"][0]["num_images"] == len(table) == 41


def test_a_run_without_predictions_is_told(folders):
    plan = plan_of(seeds=(0,))
    finished(folders, plan, {"plain": 0.5, "two": 0.5})
    (folders.run(plan.runs[0]) / "predictions.csv").unlink()
    with pytest.raises(
        DataError, match=r"predictions.csv cannot be read .*; remove .*report.json, and the same command"
    ):
        summary(plan, folders)


def test_curves_are_means_over_seeds(folders):
    plan = plan_of(("plain",), seeds=(0, 1))
    for run in plan.runs:
        rows = [
            {"kind": "train", "step": 10, "epoch": 1, "loss_scales": [1.0 + run.seed, 3.0]},
            {"kind": "train", "step": 20, "epoch": 1, "loss_scales": [None, 5.0]},
            {"kind": "validation", "epoch": 1, "top1_fused": 50.0 + 20 * run.seed},
        ]
        write_finished(folders.run(run), right(0.5), log=rows)
    curves = summary(plan, folders)["results"][0]["curves"]
    assert curves["validation_top1"] == {"epoch": [1], "mean": [60], "low": [50], "high": [70]}
    assert curves["training_loss"] == {"step": [10, 20], "mean": [2.25, 5], "low": [2, 5], "high": [2.5, 5]}


def test_validation_is_that_of_the_epoch_that_was_kept(folders):
    plan = plan_of(("plain", "two"), seeds=(0, 1))
    for run in plan.runs:
        rows = [
            {
                "kind": "validation",
                "epoch": epoch,
                "top1_fused": 50.0 + 10 * run.seed + epoch,
                "loss_fused": run.seed + epoch / 10,
            }
            for epoch in (1, 2, 3)
        ]
        write_finished(folders.run(run), right(0.5), log=rows if run.method == "two" else ())
    plain, two = summary(plan, folders)["results"]
    assert plain["validation"] == plain["validation_loss"] == {"mean": None, "sd": None}
    assert two["validation"] == {"mean": 57, "sd": pytest.approx(50**0.5)}
    assert two["validation_loss"] == {"mean": pytest.approx(0.7), "sd": pytest.approx(0.5**0.5)}


def test_validation_of_a_probe_is_that_of_the_head_that_was_kept(folders):
    plan = plan_of(("plain",), seeds=(0,))
    rows = [
        {"kind": "probe", "step": step, "top1_fused": top1, "loss_fused": 0.5, "is_best": is_best}
        for step, top1, is_best in ((1, 50.0, True), (2, 70.0, True), (3, 60.0, False))
    ]
    write_finished(folders.run(plan.runs[0]), right(0.5), log=rows)
    (plain,) = summary(plan, folders)["results"]
    assert plain["validation"]["mean"] == 70


def test_times_are_of_the_precision_that_a_method_has(folders, monkeypatch):
    plan = plan_of(EVALUATED | {"bf16": {"of": "two", "precision": "bf16"}}, seeds=(0,))
    for run in plan.runs:
        if run.of is None:
            write_finished(folders.run(run), right(0.5), num_scales=2)
        else:
            write_evaluated(folders, run, right(0.5), early_exit={"exited_at": [50.0, 50.0]})
    measured = {}
    monkeypatch.setattr(costs, "measure_models", lambda specs, *_, **__: measured.update(specs) or [])
    costs_of(plan.runs, folders, measure=True, progress=lambda *_: None)
    assert sorted((spec.num_scales, spec.precision) for spec in measured.values() if spec.num_scales) == [
        (1, "fp32")
    ]
    assert sorted(spec.precision for spec in measured.values() if not spec.num_scales) == ["bf16", "fp32"]
    assert costs.timing_of(folders)["precision"] == "bf16 and fp32"


def test_the_words_name_the_better_one():
    row = {"data": "birds", "first": "a", "second": "b", "difference": -2.04, "interval": [-3.5, 0.2]}
    rows = [row | {"is_significant": True}, row | {"is_significant": False, "difference": 0.3}]
    assert words.differences_in_words(rows) == [
        "birds: significant (5 %, 2 tests, Holm): b is better than a by 2.0 points.",
        "birds: not significant (5 %, 2 tests, Holm): a and b (+0.3 points, 95 % interval -3.5 to +0.2).",
    ]


def test_costs_are_counted_and_times_measured_once(folders, monkeypatch):
    plan = plan_of(seeds=(0, 1))
    for run in plan.runs:
        write_finished(folders.run(run), right(0.5), num_scales=1 if run.method == "plain" else 2)
    calls = []
    measure = costs.measure_models

    def counted(specs, *args, **options):
        calls.append(len(specs))
        return measure(specs, *args, **options)

    monkeypatch.setattr(costs, "measure_models", counted)
    monkeypatch.setattr(costs, "NUM_ROUNDS", 1)
    found = costs_of(plan.runs, folders, progress=lambda *_: None)
    assert all(cost.milliseconds is None for cost in found.values())
    plain, two = (found[f"{name}__birds__seed0"].gmacs for name in ("plain", "two"))
    assert 1.8 * plain < two < 2.5 * plain
    assert costs.timing_of(folders) is None
    for _ in range(2):
        found = costs_of(plan.runs, folders, measure=True, progress=lambda *_: None)
    assert calls == [2]
    low, high = found["two__birds__seed1"].milliseconds_quartiles
    assert 0 < low <= found["two__birds__seed1"].milliseconds <= high
    assert found["two__birds__seed0"] == found["two__birds__seed1"]
    assert costs.timing_of(folders).keys() == {"machine", "batch_size", "precision", "num_rounds"}


EVALUATED = {
    "two": {"model.num_scales": 2},
    "one_look": {"of": "two", "num_scales": 1},
    "exit": {"of": "two", "early_exit": 0.8},
}


def write_evaluated(folders, run, right, **extra):
    """What `evaluate` leaves of a run of two scales: no weights, and its own report."""
    folder = folders.run(run)
    write_finished(folder, right, scales=(right,), seconds=0)
    (folder / "config.json").unlink()
    (folder / "metrics.jsonl").unlink()
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps(report | extra))


def test_methods_that_evaluate_others_by_hand(folders):
    """Right answers of early exit from its own column; its cost by the shares that go on."""
    plan = plan_of(EVALUATED, seeds=(0, 1))
    for run in plan.runs:
        if run.of is None:
            write_finished(folders.run(run), right(0.8), scales=(right(0.5),) * 2, log=[], seconds=40.0)
        elif run.method == "one_look":
            write_evaluated(folders, run, right(0.5))
        else:
            share = 70 + 10 * run.seed
            write_evaluated(folders, run, right(0.8), early_exit={"exited_at": [share, 100 - share]})
            path = folders.run(run) / "predictions.csv"
            lines = path.read_text().splitlines()
            labels = [line.split(",")[1] for line in lines[1:]]  # all are right
            lines = [f"{line},{label}" for line, label in zip(lines[1:], labels, strict=True)]
            path.write_text(
                "\n".join([path.read_text().splitlines()[0] + ",early_exit_label", *lines]) + "\n"
            )
    found = summary(plan, folders, cost=costs_of(plan.runs, folders, progress=lambda *_: None))
    two, one, exits = found["results"]
    assert [entry["fused"]["mean"] for entry in (one, exits)] == [100 * right(0.5).mean(), 100]
    assert (one["of"], one["evaluated_with"], two["of"]) == ("two", {"num_scales": 1}, None)
    assert one["training_seconds"]["mean"] == 40
    first, both = (macs / 1e9 for macs in macs_by_scale(load_metadata(folders.run(plan.runs[0])).model))
    assert two["gmacs"] == pytest.approx(both)
    assert one["gmacs"] == pytest.approx(macs_of(load_metadata(folders.run(plan.runs[0])).model, 1) / 1e9)
    assert one["gmacs"] < first
    assert exits["gmacs"] == pytest.approx(0.75 * first + 0.25 * both)
    assert exits["is_on_front_of_gmacs"]
    assert [row["of"] for row in found["runs"][:2]] == [None, "two__birds__seed0"]
    assert [(row["first"], row["second"]) for row in found["to_baseline"]] == [
        ("one_look", "two"),
        ("exit", "two"),
    ]
    assert {row["test"] for row in found["pairs"]} == {"t, same models"}
    assert words.evaluated_in_words(found["results"]) == [
        "one_look: two with evaluate --num_scales 1, not trained again.",
        "exit: two with evaluate --early_exit 0.8, not trained again. Its GMACs are the mean over images "
        "and seeds, by the share that goes on after each scale.",
    ]
    text = markdown_of(list(blocks_of(found | PAGE, {"birds": {}})), folders.output)
    assert "| exit | 100.0 ± 0.0 |" in text


PAGE = {"command": "", "versions": {}, "timing": None}


def judged_report(alone):
    region = dict.fromkeys(JUDGED, alone)
    curves = {name: {"area": area} for name, area in zip(CURVES, (20, 60, 30, 50), strict=True)}
    return {
        "regions_judged": {
            **{"num_images": 5, "fill": "grey", "whole": 80.0, "curves": curves, "true_box": None},
            "regions": [{"scale": 1} | region, {"scale": 2} | region],
            "moved": {"scales": [], "fused": {"found": 70.0, "moved": 50.0 + alone / 10}},
        }
    }


def test_judged_regions_are_means_over_seeds(folders):
    plan = plan_of(("plain", "two"), seeds=(0, 1), regions=5)
    finished(folders, plan, {"plain": 0.5, "two": 0.5})
    for run in plan.region_runs[1::2]:  # of `two`
        folders.run(run).mkdir(parents=True)
        report = json.dumps(judged_report(40.0 + 20 * run.seed))
        (folders.run(run) / "report.json").write_text(report)
    found = summary(plan, folders)
    plain, two = (entry["regions_judged"] for entry in found["results"])
    assert plain is None
    assert two["regions"][1]["alone"] == {"mean": 50, "sd": pytest.approx(20 / 2**0.5)}
    assert two["areas"]["random_insertion"]["mean"] == 50
    assert two["moved"]["moved"]["mean"] == 55
    text = markdown_of(list(blocks_of(found | PAGE, {"birds": {}})), folders.output)
    assert "What is deleted becomes grey." in text
    assert (
        f"| two, scale 1 | 80.0 ± 0.0 | {'50.0 ± 14.1 | ' * 5}20.0 ± 0.0 | 30.0 ± 0.0 | 60.0 ± 0.0 |" in text
    )
    assert "| two, scale 2 |  | 50.0 ± 14.1 |" in text
    assert "| two | 70.0 ± 0.0 | 55.0 ± 1.4 |" in text
    assert not any("judged of some seeds" in line for line in words.caveats(found["results"], "plain"))
    (folders.run(plan.region_runs[1]) / "report.json").unlink()
    lines = words.caveats(summary(plan, folders)["results"], "plain")
    assert any("of two on birds were judged of some seeds alone: [1] of [0, 1]" in line for line in lines)


def test_the_front():
    """By a slow twin: nobody else is as good in both, unless exactly alike."""
    generator = np.random.default_rng(0)
    points = generator.integers(0, 6, (30, 2)).tolist()
    marks = is_on_front([cost for cost, _ in points], [accuracy for _, accuracy in points])
    for (cost, accuracy), mark in zip(points, marks, strict=True):
        beaten = [p for p in points if p[0] <= cost and p[1] >= accuracy and p != [cost, accuracy]]
        assert mark == (not beaten)
    assert 0 < sum(marks) < 30

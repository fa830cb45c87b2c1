"""The page of a comparison, its plots and files, of made-up runs."""

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ramstrans.compare import costs
from ramstrans.compare.build import build_results
from ramstrans.compare.runs import Folders
from ramstrans.errors import TrainingError
from tests.compare.builders import finished, plan_of, right, write_finished
from tests.evaluation.builders import pixels


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path / "out")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Pages of two data sets, three methods and three seeds, one run of which has failed."""
    folders = Folders(tmp_path_factory.mktemp("whole") / "out")
    plan = plan_of(("plain", "two", "three"), seeds=(0, 1, 2), data={"birds": "b", "dogs": "d"})
    log = [
        {"kind": "validation", "epoch": epoch, "top1_fused": 10.0 * epoch, "loss_fused": 1.5 / epoch}
        for epoch in (1, 2, 3)
    ]
    for run in plan.runs[:-1]:
        share = {"plain": 0.5, "two": 0.9, "three": 0.55}[run.method]
        answers = right(share, 60, seed=100 * run.seed + "plain two three".index(run.method))
        scales = (answers,) if run.method == "plain" else (answers, right(0.4, 60))
        write_finished(folders.run(run), answers, scales=scales, log=log)
    errors = {plan.runs[-1].name: "<b>disk</b> | full"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "NUM_ROUNDS", 1)
        results = build_results(plan, folders, errors, command="ramstrans compare", measure=True)
    return results, folders.output


def test_the_page_as_html_needs_no_other_file(whole):
    results, output = whole
    text = (output / "compare.html").read_text()
    pictures = re.findall(r'<img src="data:image/webp;base64,([^"]+)"', text)
    assert len(pictures) == 6
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), pixels(output / "plots/birds-accuracies.png"))
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "<title>Comparison of 3 methods</title>" in text
    assert "&lt;b&gt;disk&lt;/b&gt;" in text
    assert "<b>" not in text
    assert text.count("<table>") == text.count("</table>") == 2 * 4 + 2
    assert json.loads((output / "compare.json").read_text()) == results


def test_the_page_as_markdown(whole):
    results, output = whole
    text = (output / "compare.md").read_text()
    assert "17 of 18 runs" in text
    assert r"three__dogs__seed2 failed and is left out: \<b\>disk\</b\> \| full." in text
    assert "- birds: significant (5 %, 4 tests, Holm): two is better than plain by" in text
    assert "not significant (5 %, 4 tests, Holm): three and plain (" in text
    for name in re.findall(r"\]\((plots/[^)]+)\)", text):
        assert pixels(output / name).std() > 10
    entry = results["results"][0]
    assert f"| plain | {entry['fused']['mean']:.1f} ± {entry['fused']['sd']:.1f} |" in text
    assert "| scale 1 | scale 2 | fused, validation | log loss, validation | fused, seeds 0, 1, 2 |" in text
    assert re.search(r"\| \*?\*?two\*?\*? \|.* \| 20\.0 ± 0\.0 \| 0\.750 ± 0\.000 \| \d+\.\d, ", text)
    assert "Time: medians over 1 round in which the models took turns, in batches of 32, fp32, on " in text


def test_the_answers_are_those_that_the_page_sums_up(whole):
    results, output = whole
    assert {path.name for path in (output / "answers").iterdir()} == {"birds.csv", "dogs.csv"}
    for entry in results["results"]:
        table = pd.read_csv(output / "answers" / f"{entry['data']}.csv", keep_default_na=False)
        assert table["true"].tolist() == [("crow", "nan", "wren")[number % 3] for number in range(60)]
        assert table["path"].tolist() == [f"{number:03}.jpg" for number in range(60)]
        runs = [f"{entry['contender']}__{entry['data']}__seed{seed}" for seed in entry["seeds"]]
        for part, found in [("fused", entry["fused"]), ("scale 1", entry["scales"][0])]:
            assert [100 * table[f"{run} {part}"].mean() for run in runs] == pytest.approx(found["values"])
    dogs = pd.read_csv(output / "answers" / "dogs.csv")
    assert "three__dogs__seed1 scale 2" in dogs
    assert "three__dogs__seed2 fused" not in dogs


def test_the_keys_of_compare_json(whole):
    results, _ = whole
    assert results.keys() == {
        *("format_version", "plan", "baseline", "results", "to_baseline", "pairs", "runs"),
        *("command", "versions", "timing"),
    }
    assert results["results"][0].keys() == {
        *(
            "data",
            "contender",
            "method",
            "variant",
            "seeds",
            "missing_seeds",
            "num_images",
            "fused",
            "scales",
            "validation",
            "validation_loss",
        ),
        *("of", "evaluated_with", "regions_judged", "judged_seeds"),
        *("regions", "training_seconds", "gmacs", "milliseconds", "milliseconds_quartiles", "curves"),
        *("is_on_front_of_gmacs", "is_on_front_of_milliseconds"),
    }
    assert results["pairs"][0].keys() == {
        *("data", "first", "second", "first_seeds", "second_seeds", "difference", "interval", "p", "test"),
        *("p_holm", "is_significant"),
    }


def test_nothing_to_show_is_an_error(folders):
    with pytest.raises(TrainingError, match=r"none of the 4 runs has finished.*; start without --jobs 0"):
        build_results(plan_of(), folders, {})
    with pytest.raises(TrainingError, match=r"none of the 4 runs has finished.*; a: no data"):
        build_results(plan_of(), folders, {"a": "no data"})


def test_pictures_of_other_runs_are_removed(folders):
    plan = plan_of(seeds=(0,))
    finished(folders, plan, {"plain": 0.5, "two": 0.5})  # without validation: no curves
    old = folders.output / "plots" / "birds-curves.png"
    old.parent.mkdir()
    old.write_bytes(b"of before")
    build_results(plan, folders, {})
    assert not old.exists()
    assert "curves.png" not in (folders.output / "compare.md").read_text()


def test_pairs_are_shown_where_there_are_more_than_with_the_baseline(folders):
    plan = plan_of(("plain", "two"), seeds=(0,), data={"birds": "b", "dogs": "d"})
    finished(folders, plan, {"plain": 0.5, "two": 0.5})
    results = build_results(plan, folders, {})
    assert len(results["pairs"]) == len(results["to_baseline"]) == 2
    assert "All pairs" not in (folders.output / "compare.md").read_text()

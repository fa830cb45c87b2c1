"""The published answers of all runs: docs/results.md says what they say."""

import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from scripts import evidence

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docs/evidence").glob("*.csv"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_results_have_the_figures_of_the_answers(path):
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    right = evidence.by_method(evidence.read_answers([path]))
    assert right
    for method, found in right.items():
        fused = f"**{evidence.mean_text(found['fused'])}**"
        of_seeds = ", ".join(f"{100 * value:.1f}" for value in found["fused"].mean(axis=1))
        rows = [line for line in page.splitlines() if line.startswith(f"| {method} |")]
        assert any(fused in row and of_seeds in row for row in rows), (method, fused, of_seeds)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "baseline"),
    [
        (["methods_cub50"], "plain"),
        (["better_cub50", "better_peers_cub50", "same_rate_cub50"], "one_look"),
        (["efficientnet_cub50"], "plain"),
        (["controls_cub50"], "rams"),
        (["toybirds", "toybirds_muon"], "rams"),
        (["far_cub50", "far_peers_cub50"], "rams"),
        (["toyfar"], "rams"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_results_have_the_differences_and_tests_of_the_answers(names, baseline):
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    right = evidence.by_method(evidence.read_answers([ROOT / f"docs/evidence/{name}.csv" for name in names]))
    for line in evidence.tables(right, baseline, with_pairs=False)[2:]:
        cells = [cell.strip() for cell in line.split("|")]
        method, difference, p = cells[1], cells[-3], cells[-2]
        rows = [row for row in page.splitlines() if row.startswith(f"| {method} |")]
        assert method == baseline or any(f"| {difference} | {p} |" in row for row in rows), line


@pytest.fixture
def answers(tmp_path):
    """Two files of four images: methods a and b, whose one look is b's first; seeds 0 and 1."""
    images = {"path": list("wxyz"), "true": ["k", "k", "l", "l"]}
    runs = {
        "a": {"fused": [1, 0, 0, 0], "scale 1": [1, 0, 0, 0]},
        "b": {"fused": [1, 1, 1, 0], "scale 1": [1, 1, 0, 0], "scale 2": [0, 1, 1, 1]},
        "b_one": {"fused": [1, 1, 0, 0], "scale 1": [1, 1, 0, 0]},
    }
    paths = []
    for seed in (0, 1):
        columns = {
            f"{method}__my_birds__seed{seed} {part}": right
            for method, parts in runs.items()
            for part, right in parts.items()
        }
        paths.append(tmp_path / f"{seed}.csv")
        pd.DataFrame(images | columns).to_csv(paths[-1], index=False)
    return paths


def test_files_are_taken_together(answers, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evidence.py", *map(str, answers), "--baseline", "a", "--pairs"])
    evidence.main()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()
    ]
    assert [row[:4] for row in rows[2:5]] == [
        ["a", "25.0 ± 0.0", "-", "**25.0 ± 0.0**"],
        ["b", "50.0 ± 0.0", "75.0 ± 0.0", "**75.0 ± 0.0**"],
        ["b_one", "50.0 ± 0.0", "-", "**50.0 ± 0.0**"],
    ]
    assert rows[3][5] == "75.0, 75.0"
    assert [row[0] for row in rows[8:]] == ["b - a", "b_one - a", "b_one - b"]
    assert rows[3][6].startswith("+50.0 (")
    assert rows[10][1].startswith("-25.0 (")


def test_one_look_of_the_same_models_is_told(answers):
    right = evidence.by_method(evidence.read_answers(answers))
    assert evidence.are_same(right["b"], right["b_one"])
    assert not evidence.are_same(right["a"], right["b"])


def test_runs_and_images_are_checked(answers, tmp_path):
    with pytest.raises(ValueError, match=re.escape("a__my_birds__seed0 fused")):
        evidence.read_answers([answers[0], answers[0]])
    other = pd.read_csv(answers[1]).replace({"path": {"w": "v"}})
    other.to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(ValueError, match="other images"):
        evidence.read_answers([answers[0], tmp_path / "other.csv"])
    right = pd.read_csv(answers[0]).rename(columns={"b__my_birds__seed0 fused": "b fused"})
    with pytest.raises(ValueError, match="column 'b fused'"):
        evidence.by_method(right)


def test_an_unknown_baseline_is_one_line(answers, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["evidence.py", str(answers[0])])
    with pytest.raises(SystemExit, match="2"):
        evidence.main()
    assert "--baseline: there is no method 'plain' among a, b, b_one" in capsys.readouterr().err

"""Ranks and priors through the commands, on a tiny run with a calibration made by hand."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ramstrans.calibration.fitted import load_calibration, save_calibration
from ramstrans.calibration.taxonomy import taxonomy_of
from ramstrans.cli import main
from ramstrans.data.toybirds.generator import make_toybirds
from ramstrans.errors import UsageError
from ramstrans.evaluation import images as reading
from ramstrans.inference import BatchPredictor
from ramstrans.inference.predictor import Predictor
from ramstrans.inference.writers import to_row
from ramstrans.saved.metadata import load_metadata
from ramstrans.saved.model import load_model, weights_digest
from tests.calibration.builders import make_calibration

CPU = ("--device", "cpu")


@pytest.fixture
def run(trained, tmp_path):
    """A calibrated copy of the run: the first two of its three classes are of one genus."""
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    digest = weights_digest(load_model(folder, "cpu").model.state_dict())
    taxonomy = taxonomy_of(("species", "genus"), [("First",), ("First",), ("Last",)], source="by hand")
    save_calibration(folder, replace(make_calibration(None, None, taxonomy=taxonomy), weights=digest))
    return folder


@pytest.fixture
def photographs(birds, tmp_path):
    """A table of two photographs, one by a lake."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    found = sorted(birds.rglob("*.jpg")) + sorted(birds.rglob("*.png"))
    for name, source in zip("ab", found, strict=False):
        Image.open(source).save(folder / f"{name}.png")
    (folder / "table.csv").write_text("path,place\na.png,lake\nb.png,hill\n")
    return folder / "table.csv"


def names_of(run):
    return load_metadata(run).class_names


def write(path, text):
    path.write_text(text)
    return path


def test_predict_rolls_up(run, photographs, capsys):
    names = names_of(run)
    image = str(photographs.parent / "a.png")
    predict = ("predict", str(run), image, *CPU, "--format", "jsonl")
    assert main([*predict, "--rank_confidence", "0.99"]) == 0
    assert main([*predict, "--rank_confidence", "0.501"]) == 0
    sure, loose = map(json.loads, capsys.readouterr().out.splitlines())
    assert sure["answer"] == {"name": None, "rank": "root", "probability": 1.0}
    of = dict(zip(loose["labels"], loose["probabilities"], strict=True))
    groups = {"First": of[names[0]] + of[names[1]], "Last": of[names[2]]}
    best = max(groups, key=groups.get)
    assert of[loose["labels"][0]] < 0.501  # as little as it was trained
    assert (loose["answer"]["rank"], loose["answer"]["name"]) == ("genus", best)
    assert loose["answer"]["probability"] == pytest.approx(groups[best], abs=2e-6)
    assert sure["labels"] == loose["labels"]
    assert sure["priors"] is None


def test_priors_by_a_column_of_the_table(run, photographs, tmp_path, capsys, caplog):
    first, _, last = names_of(run)
    priors = write(tmp_path / "priors.csv", f"place,class,weight\nlake,{last},1\nlake,{first},0\n")
    output = tmp_path / "rows.csv"
    arguments = ("predict", str(run), str(photographs), "--output", str(output), *CPU)
    assert main([*arguments, "--priors", str(priors)]) == 0
    lake, hill = csv.DictReader(output.read_text().splitlines())
    assert (lake["label_1"], lake["probability_1"]) == (last, "1.0")
    assert (lake["answer"], lake["answer_rank"], lake["priors"]) == (last, "species", "place lake")
    assert lake["changed"] == str(lake["label_before"] != last)
    assert (hill["priors"], hill["changed"], hill["label_before"]) == ("", "False", hill["label_1"])
    assert float(lake["probability_before"]) < 1
    assert "1 of 2 images was answered without priors" in caplog.text
    plain = Predictor.load(run, "cpu")(photographs.parent / "b.png", top_k=3)
    assert float(hill["probability_1"]) == pytest.approx(plain.probabilities[0], abs=1e-6)
    assert plain.priors is None


def test_the_scales_the_unknown_and_the_set_are_without_priors(run, photographs, tmp_path):
    image = photographs.parent / "a.png"
    plain = Predictor.load(run, "cpu")(image, top_k=3)
    listed = write(tmp_path / "list.txt", f"{names_of(run)[2]}\n")
    found = Predictor.load(run, "cpu", priors=listed)(image, top_k=3)
    assert found.scales == plain.scales
    assert (found.unknown, found.prediction_set) == (plain.unknown, plain.prediction_set)
    assert (found.labels[0], found.priors.matched) == (names_of(run)[2], "every photograph")
    assert (found.priors.label, found.priors.probability) == (plain.labels[0], plain.probabilities[0])
    assert found.answer == ("species", names_of(run)[2], 1.0)


def test_early_exit_compares_what_is_without_priors(run, photographs, tmp_path):
    listed = write(tmp_path / "list.txt", f"{names_of(run)[2]}\n")
    options = {"early_exit": 0.4}
    plain = Predictor.load(run, "cpu", **options)(photographs.parent / "a.png")
    found = Predictor.load(run, "cpu", **options, priors=listed)(photographs.parent / "a.png")
    assert len(found.scales) == len(plain.scales)
    assert found.labels[0] == names_of(run)[2]


def test_rows_of_other_priors_are_not_continued(run, photographs, tmp_path):
    first, _, last = names_of(run)
    prints = {
        None: Predictor.load(run, "cpu").fingerprint(),
        **{
            name: Predictor.load(run, "cpu", priors=write(tmp_path / "list.txt", name)).fingerprint()
            for name in (first, last)
        },
        0.6: Predictor.load(run, "cpu", rank_confidence=0.6).fingerprint(),
    }
    assert len({json.dumps(each) for each in prints.values()}) == 4


def test_explain_says_it(run, photographs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    last = names_of(run)[2]
    listed = write(tmp_path / "list.txt", f"{last}\n")
    image = str(photographs.parent / "a.png")
    assert main(["explain", str(run), image, "--priors", str(listed), *CPU]) == 0
    line = capsys.readouterr().out
    assert f"{last} 100.0%; by priors (every photograph)" in line
    assert json.loads((tmp_path / "a-explained.json").read_text())["answer"]["name"] == last
    assert main(["explain", str(run), image, "--rank_confidence", "0.99", *CPU, "--overwrite", "true"]) == 0
    assert "; no rank is certain" in capsys.readouterr().out


def test_evaluate_measures_ranks_and_priors(run, birds, tmp_path, capsys, no_pictures):
    image = next(path for path in birds.rglob("*") if path.suffix in (".jpg", ".png"))
    likely = Predictor.load(run, "cpu")(image).labels[0]
    priors = write(tmp_path / "priors.csv", f"class,weight\n{likely},0\n*,1\n")
    out = tmp_path / "out"
    arguments = ("--priors", str(priors), "--rank_confidence", "0.6", "--output", str(out), *CPU)
    assert main(["evaluate", str(run), str(birds), *arguments]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["ranks"]["confidence"] == 60
    assert [each["rank"] for each in report["ranks"]["ranks"]] == ["species", "genus"]
    assert report["priors"]["matched"] == report["num_images"] == 6
    assert report["priors"]["before"] == report["fused"]["top1"]
    page = (out / "report.md").read_text()
    for heading in ("## Answers at the rank that is certain", "## Priors"):
        assert heading in page
    assert "Answers with 60 %: species" in capsys.readouterr().out
    rows = list(csv.DictReader((out / "predictions.csv").read_text().splitlines()))
    right = sum(row["label_with_priors"] == row["true"] for row in rows)
    assert report["priors"]["after"] == pytest.approx(100 * right / 6)
    assert likely not in {row["label_with_priors"] for row in rows}
    assert report["priors"]["changed"] == sum(row["label_with_priors"] != row["label_1"] for row in rows)
    assert {row["answer_rank"] for row in rows} <= {"species", "genus", "root"}


def test_evaluate_joins_the_table_of_the_data_set(run, birds, tmp_path, no_pictures):
    names = names_of(run)
    rows = ["path,label,month"]
    for index, path in enumerate(sorted([*birds.rglob("*.jpg"), *birds.rglob("*.png")])):
        rows.append(f"{path},{path.parent.name},{1 + index % 2}")
    table = write(tmp_path / "birds.csv", "\n".join(rows))
    priors = write(tmp_path / "priors.csv", f"month,class,weight\n1,{names[0]},1\n")
    out = tmp_path / "out"
    arguments = ("--priors", str(priors), "--output", str(out), *CPU)
    assert main(["evaluate", str(run), str(table), *arguments]) == 0
    found = json.loads((out / "report.json").read_text())["priors"]
    assert found["matched"] == (len(rows) - 1 + 1) // 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("predict", "RUN", "IMAGE", "--rank_confidence", "0.4"),
            2,
            "--rank_confidence is 0.4; give more",
        ),
        (("explain", "RUN", "IMAGE", "--rank_confidence", "1"), 2, "--rank_confidence is 1; give more than"),
        (("evaluate", "RUN", "--rank_confidence", "2"), 2, "--rank_confidence is 2; give more than 0.5"),
        (("calibrate", "RUN", "--rank_confidence", "0.5"), 2, "--rank_confidence is 0.5; give more than 0.5"),
        (("predict", "RUN", "IMAGE", "--priors", "none.csv"), 3, "none.csv cannot be read"),
        (
            ("predict", "RUN", "IMAGE", "--priors", "PLACE"),
            2,
            "'place', and no table of photographs is read here; remove it, or give `ramstrans predict`",
        ),
        (
            ("explain", "RUN", "TABLE", "--priors", "SITE"),
            2,
            "'site', and the table of the photographs has",
        ),
        (("evaluate", "RUN", "--priors", "PLACE"), 2, "no table of photographs is read here"),
        (("evaluate", "RUN", "--priors", "LIST", "--fusion", "fitted"), 2, "--priors asks the calibration"),
        (("predict", "PLAIN", "IMAGE", "--priors", "LIST"), 2, "is not calibrated; run `ramstrans calibrate"),
        (("evaluate", "PLAIN", "--priors", "LIST"), 2, "--priors needs calibrated probabilities"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    run, trained, photographs, tmp_path, fails, arguments, code, message
):
    name = names_of(run)[0]
    files = {
        "RUN": run,
        "PLAIN": trained.folder,
        "IMAGE": photographs.parent / "a.png",
        "TABLE": photographs,
        "LIST": write(tmp_path / "list.txt", f"{name}\n"),
        "PLACE": write(tmp_path / "place.csv", f"place,class,weight\nlake,{name},1\n"),
        "SITE": write(tmp_path / "site.csv", f"site,class,weight\nlake,{name},1\n"),
    }
    given = [str(files.get(argument, argument)) for argument in arguments]
    assert message in fails(code, *given, *CPU)


def test_batches_take_priors_and_a_confidence(run, photographs, tmp_path):
    name = names_of(run)[0]
    listed = write(tmp_path / "list.txt", f"{name}\n")
    paths, ranks = [str(photographs.parent / "a.png")], []
    for options in ({"priors": listed}, {"rank_confidence": 0.99}, {"rank_confidence": 0.501}):
        (expected,) = Predictor.load(run, "cpu", **options)(paths)
        found = BatchPredictor(run, device="cpu", **options)({"path": paths})
        assert found == {key: [value] for key, value in to_row(expected, len(expected.labels)).items()}
        ranks += found["answer_rank"]
    assert ranks == ["species", "root", "genus"]


def test_batches_take_priors_without_conditions_alone(run, photographs, tmp_path):
    priors = write(tmp_path / "month.csv", f"month,class,weight\n6,{names_of(run)[0]},1\n")
    with pytest.raises(UsageError, match=r"month\.csv has conditions, of which a batch knows nothing"):
        BatchPredictor(run, device="cpu", priors=priors)({"path": [str(photographs.parent / "a.png")]})


def test_a_server_takes_lists_alone(run, tmp_path, fails):
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    name = names_of(run)[0]
    place = write(tmp_path / "place.csv", f"month,class,weight\n5,{name},1\n")
    line = fails(2, "serve", run, "--port", "0", "--priors", place, *CPU)
    assert "has conditions, of which a server knows nothing" in line


def test_a_confidence_without_ranks_is_ignored_with_a_warning(trained, run, photographs, caplog):
    image = str(photographs.parent / "a.png")
    assert main(["predict", str(trained.folder), image, "--rank_confidence", "0.8", *CPU]) == 0
    assert "--rank_confidence is ignored: the model has no ranks" in caplog.text


@pytest.mark.slow
def test_calibrate_keeps_the_table(trained, tmp_path, caplog, capsys):
    folder, data = tmp_path / "run", tmp_path / "birds"
    shutil.copytree(trained.folder, folder)
    make_toybirds(data, num_classes=3, train_per_class=7, test_per_class=1, image_size=48, seed=3)
    names = names_of(folder)
    table = write(tmp_path / "ranks.csv", f"class,genus\n{names[0]},A\n{names[1]},B\n{names[2]},B\n")
    command = ["calibrate", str(folder), str(data), *CPU]
    assert main([*command, "--taxonomy", str(table), "--rank_confidence", "0.75"]) == 0
    assert "Answers with 75 %: class" in capsys.readouterr().out
    kept = load_calibration(folder).taxonomy
    assert (kept.groups, kept.confidence, kept.source) == ((("A", "B"),), 0.75, "ranks.csv")
    assert main(command) == 0  # again, without the table
    assert load_calibration(folder).taxonomy == kept
    write(table, f"class,genus\n{names[0]},A\n{names[1]},B\n")
    assert main([*command, "--taxonomy", str(table)]) == 3
    assert load_calibration(folder).taxonomy == kept


@pytest.mark.slow
def test_ranks_of_the_data_set_are_taken_by_themselves(trained, tmp_path, monkeypatch):
    folder, data = tmp_path / "run", tmp_path / "birds"
    shutil.copytree(trained.folder, folder)
    make_toybirds(data, num_classes=3, train_per_class=7, test_per_class=1, image_size=48, seed=3)
    read = reading.read_image_set
    ranks = {"hierarchy": (("A",), ("A",), ("B",)), "ranks": ("species", "genus")}
    monkeypatch.setattr(reading, "read_image_set", lambda *arguments: read(*arguments)._replace(**ranks))
    assert main(["calibrate", str(folder), str(data), *CPU]) == 0
    found = load_calibration(folder).taxonomy
    assert (found.ranks, found.members) == (("species", "genus"), ((0, 0, 1),))
    assert np.isclose(found.confidence, 0.9)

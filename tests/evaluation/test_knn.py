"""The vote of neighbours, by scikit-learn's; and training photographs in a report."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from ramstrans.cli import main
from ramstrans.data.records import Record
from ramstrans.errors import ConfigError
from ramstrans.evaluation.config import EvaluationConfig
from ramstrans.evaluation.knn import knn_report
from ramstrans.evaluation.predict import Predictions


def predictions(features, labels, names="t"):
    empty = np.zeros((1, len(labels), 4))
    records = tuple(Record(Path(f"{names}{row}.jpg"), int(label), "test") for row, label in enumerate(labels))
    return Predictions(empty, labels, empty, empty, empty, records, features=features)


def test_top1_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    centres, labels = rng.normal(size=(7, 2, 11)), rng.integers(0, 7, 150)
    features = (centres[labels] + 1.5 * rng.normal(size=(150, 2, 11))).transpose(1, 0, 2)
    features = features * np.array([1, 30])[:, None, None]
    train, test = slice(100), slice(100, 150)
    bank = predictions(features[:, train], labels[train], "bank")
    found = knn_report(20, bank, predictions(features[:, test], labels[test]), 7)
    lengths = np.linalg.norm(features, axis=2, keepdims=True)
    joined = np.concatenate(list(features / lengths), axis=1)
    expected = []
    for part in (features[0], features[1], joined):
        model = KNeighborsClassifier(
            20, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07)
        )
        model.fit(part[train], labels[train])
        expected.append(100 * model.score(part[test], labels[test]))
    assert [entry["top1"] for entry in (*found["scales"], found["fused"])] == pytest.approx(expected)
    assert (found["k"], found["num_images"]) == (20, 100)
    assert found["fused"]["interval"][0] < expected[2] < found["fused"]["interval"][1]
    assert len({round(one) for one in expected}) == 3  # the figures differ


def test_an_image_does_not_vote_for_itself():
    """The nearest others of the three images are 1, 0 and 1, which is right for the last alone."""
    features = np.array([[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]])
    same = predictions(features, np.array([0, 1, 1]))
    found = knn_report(1, same, same, 2)
    assert (found["fused"]["top1"], found["k"], found["num_images"]) == (pytest.approx(100 / 3), 1, 3)
    assert knn_report(9, same, same, 2)["fused"] == found["fused"]  # two others, the nearer one outweighs
    other = predictions(features, np.array([0, 1, 1]), "other")
    assert knn_report(1, same, other, 2)["fused"]["top1"] == 100


def test_k_is_at_least_one(tmp_path):
    with pytest.raises(ConfigError, match="--knn is 0; give 1 or more"):
        EvaluationConfig(tmp_path, knn=0)


@pytest.mark.slow  # pictures
def test_an_evaluation_with_neighbours_and_an_index(trained, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    assert main(["embed", str(folder), "--index", "true", "--device", "cpu"]) == 0
    assert main(["evaluate", str(folder), "--knn", "20", "--device", "cpu"]) == 0
    count = len(trained.prepared.images.of_split("train"))
    assert f"{count} nearest of {count} training images: top-1" in capsys.readouterr().out
    results = folder / "evaluation-test"
    report = json.loads((results / "report.json").read_text())
    assert report["knn"]["k"] == count
    assert len(report["knn"]["scales"]) == 2
    assert "Without the classifier: " in (results / "report.md").read_text()
    page = (results / "report.html").read_text()
    assert "nearest training photograph of" in page
    assert "What the features know" in page
    plain = json.loads((trained.folder / "report.json").read_text())
    assert report["fused"] == plain["fused"]  # the features change no answer


@pytest.mark.usefixtures("no_pictures")
def test_an_index_of_another_model_is_left_out_of_a_report(trained, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    assert main(["embed", str(folder), "--index", "true", "--device", "cpu"]) == 0
    config["preprocessing"]["resize"] += 1
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["evaluate", str(folder), "--device", "cpu"]) == 0
    assert "shows no training photographs: " in caplog.text

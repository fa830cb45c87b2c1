import dataclasses
import shutil

import numpy as np
import pytest

from ramstrans.data.config import DataConfig
from ramstrans.data.datasets.cub import read_cub
from ramstrans.errors import DataError
from ramstrans.evaluation import label_errors as module
from ramstrans.evaluation.label_errors import as_in_training, find_label_issues
from ramstrans.saved.model import load_metadata, load_state, save_model


def test_images_are_held_out_as_in_training():
    config = DataConfig("folder", "here", val_fraction=0.5, on_unreadable="skip", max_pixels=99)
    trained_on = {"name": "cub", "root": "there", "val_fraction": 0.25, "split_seed": 7, "max_pixels": 5}
    assert as_in_training(config, trained_on) == dataclasses.replace(
        config, val_fraction=0.25, split_seed=7, on_unreadable="stop"
    )
    assert as_in_training(config, {}).val_fraction == 0.5


@pytest.fixture
def predicted(monkeypatch):
    """The predicted records; predictions contradict the label of the first image of each split."""
    calls, predict_split = [], module.predict_split

    def contradicting(model, loader, *args, **options):
        predictions = predict_split(model, loader, *args, **options)
        calls.append(predictions.records)
        probabilities = np.full_like(predictions.probabilities, 0.05)
        probabilities[:, np.arange(len(predictions.labels)), predictions.labels] = 0.9
        first = int(np.flatnonzero(predictions.labels == 0)[0])
        probabilities[:, first] = [0.02, 0.96, 0.02]
        return predictions._replace(probabilities=probabilities)

    monkeypatch.setattr(module, "predict_split", contradicting)
    return calls


def test_issues_of_unseen_and_seen_images(trained, birds, predicted, caplog):
    caplog.set_level("INFO", "ramstrans")
    config = DataConfig("cub", birds, val_fraction=0.5)
    found = find_label_issues(trained.folder, config, batch_size=4, device="cpu")
    assert [line for line in caplog.messages if line.startswith("the model contradicts")] == [
        "the model contradicts 1 of 9 labels of images that it was not trained on",
        "the model contradicts 1 of 9 labels of images that it was trained on",
    ]
    images = trained.prepared.images
    held_out = [record.path for split in ("val", "test") for record in images.of_split(split)]
    assert [len(records) for records in predicted] == [9, 9]
    assert {record.path for record in predicted[0]} == set(held_out)
    assert [one.detail.endswith("weaker") for one in found] == [False, True]
    assert found[0].paths[0] in held_out
    assert found[1].paths[0] in {record.path for record in images.of_split("train")}
    given, suggested = images.class_names[:2]
    assert all(one.detail.startswith(f"given '{given}' (2%), suggested '{suggested}' (96%)") for one in found)


def test_unreadable_files_are_left_out(trained, birds, tmp_path, predicted):
    root = tmp_path / "birds"
    shutil.copytree(birds, root)
    broken = {record.path for record in read_cub(root).records if record.split == "test"}
    for path in broken:
        path.write_bytes(b"")
    config = DataConfig("cub", root)
    with pytest.raises(DataError, match="empty file"):
        find_label_issues(trained.folder, config, device="cpu")
    find_label_issues(trained.folder, config, unreadable=broken, device="cpu")
    seen = [record.path for records in predicted for record in records]
    assert sorted(seen) == sorted(
        record.path for record in read_cub(root).records if record.path not in broken
    )


def test_a_model_folder_without_a_run(trained, birds, tmp_path, predicted):
    metadata = dataclasses.replace(load_metadata(trained.folder), training={})
    save_model(tmp_path / "model", load_state(trained.folder), metadata)
    find_label_issues(tmp_path / "model", DataConfig("cub", birds, val_fraction=0.0), device="cpu")
    assert [len(records) for records in predicted] == [6, 12]


def test_other_classes_are_an_error(trained, colors):
    with pytest.raises(DataError, match="3 classes are not among the model's 3"):
        find_label_issues(trained.folder, DataConfig("folder", colors), device="cpu")

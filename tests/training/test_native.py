"""A whole run whose regions are cut from the photographs' own pixels."""

import pytest

from ramstrans import Predictor
from ramstrans.cli import main
from ramstrans.evaluation.early_exit import time_exit
from ramstrans.saved.model import load_metadata, load_state
from ramstrans.training.run import prepare, train
from tests.processes import run_ranks
from tests.tiny import same_state, tiny_run, write_config

NATIVE = {"zoom_source": "native", "component": "saliency", "min_region": 0.25, "max_aspect": 2.0}


@pytest.fixture(scope="module")
def run(birds, tmp_path_factory):
    """The run folder and what it was prepared from; micro-batches, workers and a cache on disk."""
    folder = tmp_path_factory.mktemp("native") / "run"
    data = {"zoom_pixels": 1000, "num_workers": 1, "cache": "disk", "cache_dir": folder.parent / "cache"}
    training = {"max_steps": 3, "gradient_accumulation_steps": 3, "contrastive": 1.0}
    prepared = prepare(tiny_run(birds, data=data, model=NATIVE, training=training))
    train(prepared, folder)
    return folder, prepared


def test_what_the_run_saw_is_saved(run):
    metadata = load_metadata(run[0])
    assert metadata.preprocessing.zoom_pixels == 1000
    assert {name: getattr(metadata.model, name) for name in NATIVE} == NATIVE


def test_batches_hold_the_photographs_own_pixels(run):
    loader, _ = run[1].loaders()
    sizes = {tuple(image.shape[1:]) for batch in loader for image in batch.high_res}
    assert all(height * width <= 1000 for height, width in sizes)


def test_workers_micro_batches_and_caches_change_nothing(run, birds, tmp_path):
    training = {"max_steps": 3, "gradient_accumulation_steps": 3, "contrastive": 1.0}
    plain = prepare(tiny_run(birds, data={"zoom_pixels": 1000}, model=NATIVE, training=training))
    train(plain, tmp_path / "run")
    assert same_state(load_state(run[0]), load_state(tmp_path / "run"))


def test_it_is_evaluated_with_early_exit_and_explained(run, tmp_path, no_pictures):
    folder, prepared = run
    command = ("evaluate", str(folder), "--output", str(tmp_path / "out"), "--device", "cpu")
    assert main([*command, "--early_exit", "auto"]) == 0
    predictor = Predictor.load(folder, "cpu", early_exit="auto")
    path = prepared.images.of_split("test")[0].path
    region = predictor.explain(path).prediction.scales[0].box
    assert region[2] - region[0] >= 48 / 4 * 6 / 7 - 1  # a quarter of the view, 6/7 of 48 pixels
    _, loader = prepared.loaders()
    seconds = time_exit(predictor.model, loader, confidence=0.4, precision="fp32", progress=lambda *_: None)
    assert all(taken > 0 for taken in seconds.values())


@pytest.mark.slow
def test_two_processes_train_as_one(birds, tmp_path):
    training = {
        "epochs": 2,
        "batch_size": 5,
        "lr": 0.003,
        "optimizer": "adamw",
        "gradient_accumulation_steps": 2,
    }
    config = write_config(
        tmp_path / "c.yaml", birds, model=NATIVE, data={"zoom_pixels": 1000}, training=training
    )
    for count in (1, 2):
        run_ranks(count, "train", "--config", config, "--output", tmp_path / str(count))
    one, two = (load_state(tmp_path / str(count)) for count in (1, 2))
    for name, weight in one.items():
        assert two[name].numpy() == pytest.approx(weight.numpy(), abs=2e-4)

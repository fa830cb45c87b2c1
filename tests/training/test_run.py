import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ramstrans.data.reading import cache as caching
from ramstrans.data.reading.cache import DiskCache, MemoryCache
from ramstrans.errors import ConfigError, DataError, OutputError, TrainingError, UsageError
from ramstrans.evaluation.config import EvaluationConfig
from ramstrans.evaluation.evaluate import evaluate_run
from ramstrans.saved.model import load_metadata, load_state
from ramstrans.training.config import TrainingConfig
from ramstrans.training.run import prepare, train
from ramstrans.training.run_folder import RUN_MARK, check_output, claim_output
from ramstrans.training.setup import Prepared, build_accelerator
from ramstrans.training.step import uses_explicit_attention
from tests.tiny import same_state, tiny_run


def tree(folder):
    """Every file below a folder, with its content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_run_folder_holds_all_that_was_promised(trained):
    files = {path.name for path in trained.folder.iterdir() if path.is_file()}
    assert files == {
        *("run.yaml", "model.safetensors", "config.json", "metrics.jsonl", "report.json", "report.md"),
        *("report.html", "curves.png", "gallery.png", "confusion.png", "predictions.csv"),
    }
    assert list(trained.folder.rglob("events.out.tfevents*"))


def test_the_card_tells_what_the_weights_are_of(trained):
    metadata = load_metadata(trained.folder)
    assert metadata.class_names == trained.prepared.images.class_names
    assert metadata.model == trained.prepared.config.model
    assert metadata.model.num_classes == 3
    assert metadata.preprocessing == trained.prepared.preprocessing
    assert metadata.preprocessing.crop == (48, 48)  # twice the 24 px of the input
    assert metadata.training["steps"] == 5
    assert metadata.training["chosen_on"] == "validation"
    assert metadata.training["backbone"] == [
        "the head reads the class token; 2 class tokens, all in every pass",
        "regions by rollout of 3x3 locations: every layer is attention among all tokens",
    ]
    assert metadata.training["run"]["data"]["root"] == str(trained.prepared.config.data.root)


def test_the_report_is_what_is_on_disk(trained):
    report = trained.report
    assert json.loads((trained.folder / "report.json").read_text()) == report
    assert report["num_images"] == 6
    assert report["split"] == "test"
    assert report["command"] == "ramstrans train --tiny"
    assert report["config"]["training"]["max_steps"] == 5
    assert len(report["scales"]) == 2
    assert all(0 <= scale["top1"] <= 100 for scale in report["scales"])
    assert report["regions"]["mean_iou"] is not None


def test_metrics_are_whole_rows(trained):
    rows = [json.loads(line) for line in (trained.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == [2, 4, 5]
    assert [row["epoch"] for row in rows if row["kind"] == "validation"] == [1, 2]


def test_the_test_split_is_looked_at_once_at_the_end(trained):
    assert trained.passes == [{"val"}, {"val"}, {"test"}]


def test_the_trained_weights_are_saved(trained, birds):
    initial = prepare(tiny_run(birds)).model.state_dict()
    assert not same_state(initial, load_state(trained.folder))


def test_preparing_is_determined_by_the_seed(birds):
    first, again, other = (prepare(tiny_run(birds, seed=seed)).model.state_dict() for seed in (2, 2, 3))
    assert same_state(first, again)
    assert not same_state(first, other)


def test_preparing_writes_nothing_and_logs_what_it_found(birds, tmp_path, caplog):
    caplog.set_level("INFO", "ramstrans")
    calls, before = [], tree(birds)
    config = tiny_run(birds, output=tmp_path / "run")
    prepared = prepare(config, lambda *call: calls.append(call))
    assert isinstance(prepared, Prepared)
    assert prepared.config.model.num_classes == 3
    assert not prepared.unreadable
    assert caplog.messages[0] == "cub: 3 classes, 9 train, 3 val, 6 test images"
    assert "2 scale(s)" in caplog.messages[1]
    assert calls[-1] == (18, 18, "checking files")
    assert tree(birds) == before
    assert not config.output.exists()


def test_nothing_is_written_when_the_data_are_bad(with_broken_file, tmp_path):
    root, path = with_broken_file
    with pytest.raises(DataError, match=path.name):
        prepare(tiny_run(root, "folder", output=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_skipped_file_is_logged_and_reported(with_broken_file, tmp_path, no_pictures, caplog):
    root, path = with_broken_file
    prepared = prepare(tiny_run(root, "folder", data={"on_unreadable": "skip"}))
    assert any(path.name in line for line in caplog.messages)
    report = train(prepared, tmp_path / "run")
    assert report["num_images"] == 5
    assert any(path.name in warning for warning in report["warnings"])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_splits_are_cached_as_asked_but_the_tests_not_in_memory(birds, tmp_path, split):
    def cache_of(**data):
        prepared = prepare(tiny_run(birds, data=data))
        return prepared.dataset(split).cache

    assert cache_of() is None
    assert isinstance(cache_of(cache="memory"), type(None) if split == "test" else MemoryCache)
    on_disk = cache_of(cache="disk", cache_dir=tmp_path / "kept")
    assert isinstance(on_disk, DiskCache)
    assert on_disk.folder == tmp_path / "kept"


def test_a_run_from_the_cache_on_disk_is_the_same_and_is_judged_from_it(
    trained, birds, tmp_path, monkeypatch, no_pictures
):
    data = {"cache": "disk", "cache_dir": tmp_path / "kept"}
    report = train(prepare(tiny_run(birds, data=data)), tmp_path / "run")
    assert same_state(load_state(tmp_path / "run"), load_state(trained.folder))
    assert len([file for file in (tmp_path / "kept").rglob("*") if file.is_file()]) == 18
    monkeypatch.setattr(caching, "read_resized", None)  # nothing is decoded again
    again = evaluate_run(EvaluationConfig(tmp_path / "run", output=tmp_path / "again", device="cpu"))
    assert again["fused"] == report["fused"]


def test_the_number_of_classes_is_the_datas(birds):
    with pytest.raises(ConfigError, match="num_classes is 5; the data set has 3"):
        prepare(tiny_run(birds, model={"num_classes": 5}))


def test_one_scale_and_no_validation_train_too(colors, tmp_path, no_pictures):
    config = tiny_run(
        colors,
        "folder",
        data={"val_fraction": 0.0, "cache": "memory", "color_jitter": 0.2},
        model={"num_scales": 1, "image_size": 32},
        training={"optimizer": "sgd", "max_steps": 2},
    )
    report = train(prepare(config), tmp_path / "run")
    assert len(report["scales"]) == 1
    assert report["chosen_on"] == "last epoch"
    assert report["fused"]["top1"] == report["scales"][0]["top1"]


def test_a_run_that_diverges_leaves_no_model(birds, tmp_path):
    prepared = prepare(tiny_run(birds, model={"zoom_source": "input"}, training={"max_steps": 1}))
    with torch.no_grad():
        prepared.model.encoder.model.head.bias[0] = torch.nan
    with pytest.raises(TrainingError):
        train(prepared, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    check_output(tmp_path / "run", overwrite=True)  # and the folder can be used again


def test_an_output_is_never_overwritten_without_a_word(trained, birds):
    before = tree(trained.folder)
    config = tiny_run(birds, output=trained.folder)
    with pytest.raises(OutputError, match="--overwrite true"):
        prepare(config)
    with pytest.raises(OutputError, match="--overwrite true"):
        train(trained.prepared, trained.folder)
    assert tree(trained.folder) == before


@pytest.mark.parametrize("name", ["letters.txt", "config.json", "model.safetensors"])
def test_what_is_no_run_folder_is_never_removed(tmp_path, name):
    home = tmp_path / "home"
    home.mkdir()
    (home / name).write_text("dear")
    with pytest.raises(OutputError, match="so it is not this command"):
        claim_output(home, overwrite=True)
    assert (home / name).read_text() == "dear"


def test_a_run_folder_is_replaced_if_asked_for(tmp_path):
    output = tmp_path / "runs" / "first"
    claim_output(output, overwrite=False)
    (output / "model.safetensors").write_text("old")
    claim_output(output, overwrite=True)
    assert not (output / "model.safetensors").exists()
    with pytest.raises(OutputError, match="exists"):
        claim_output(output, overwrite=False)


def test_an_empty_folder_may_be_filled(tmp_path):
    check_output(tmp_path, overwrite=False)
    check_output(None, overwrite=False)
    assert not list(tmp_path.iterdir())
    claim_output(tmp_path, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == [RUN_MARK]


@pytest.mark.parametrize("below", [".", "run", "deep/run"])
def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path, below):
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(OutputError, match="file is not a folder"):
        check_output(file / below, overwrite=True)


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OutputError, match="No space left on device"):
        claim_output(tmp_path / "run", overwrite=False)


@pytest.mark.parametrize("bf16_units", [True, False], indirect=True)
def test_bf16_without_units_for_it_is_slow_and_said_to_be(bf16_units, birds, tmp_path, caplog):
    config = tiny_run(birds, training={"precision": "bf16"})
    assert build_accelerator(config, tmp_path).mixed_precision == "bf16"
    assert (
        "no units for bf16" in caplog.text and "--training.precision fp32" in caplog.text
    ) is not bf16_units


def test_a_backbone_without_maps_is_told_before_a_file_is_read(birds, monkeypatch):
    monkeypatch.setattr("ramstrans.training.run.drop_unreadable", None)
    with pytest.raises(ConfigError, match=r"training\.channels_last is for backbones of convolutions"):
        prepare(tiny_run(birds, training={"channels_last": True}))


def test_half_precision_needs_a_gpu(birds, tmp_path):
    config = tiny_run(birds, training={"precision": "fp16"})
    with pytest.raises(UsageError, match="bf16 or fp32"):
        build_accelerator(config, tmp_path)


@pytest.mark.parametrize(
    ("precision", "attention", "explicit"),
    [("fp32", "auto", False), ("bf16", "auto", True), ("bf16", "fused", False), ("fp32", "math", True)],
)
def test_attention_is_computed_as_the_config_says(precision, attention, explicit):
    config = TrainingConfig(precision=precision, attention=attention)
    assert uses_explicit_attention(config, torch.device("cpu")) is explicit
    assert uses_explicit_attention(config, torch.device("cuda")) is (attention == "math")


def test_explicit_attention_trains_alike(birds, tmp_path, no_pictures):
    states = []
    for attention in ("fused", "math"):
        training = {"attention": attention, "max_steps": 2, "optimizer": "sgd"}
        train(prepare(tiny_run(birds, training=training)), tmp_path / attention)
        states.append(load_state(tmp_path / attention))
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-4, atol=1e-5)


def test_a_run_is_repeated_bit_by_bit(trained, birds, tmp_path, no_pictures):
    config = replace(tiny_run(birds), output=tmp_path / "again")
    report = train(prepare(config), config.output)
    assert same_state(load_state(config.output), load_state(trained.folder))
    for key in ("scales", "fused", "regions", "classes", "epoch"):
        assert report[key] == trained.report[key]


def test_a_run_with_adapters_leaves_a_plain_model(birds, tmp_path, no_pictures):
    pytest.importorskip("peft")
    prepared = prepare(tiny_run(birds, training={"finetune": "lora", "lora_rank": 2}))
    plain = set(prepared.model.state_dict())
    report = train(prepared, tmp_path / "run")
    assert set(load_state(tmp_path / "run")) == plain
    again = evaluate_run(EvaluationConfig(tmp_path / "run", output=tmp_path / "again", device="cpu"))
    assert again["fused"] == report["fused"]


@pytest.mark.parametrize("data", [{"balance": 1.0}, {"rand_augment": 2}, {"random_erasing": 1.0}])
def test_every_option_of_the_training_images_is_used(birds, data):
    def loaded(**options):
        prepared = prepare(tiny_run(birds, data=options))
        loader, _ = prepared.loaders()
        return [tensor for batch in loader for tensor in (*batch.images, batch.labels)]

    plain, changed = loaded(), loaded(**data)
    assert any(not torch.equal(one, other) for one, other in zip(plain, changed, strict=True))

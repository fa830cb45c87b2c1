"""The linear probe: features once, kept in files with a checked key, and a head at the optimum."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from ramstrans.distributed import SignalHandler
from ramstrans.errors import ConfigError, StoppedError
from ramstrans.evaluation.predict import predict_split
from ramstrans.saved.model import load_state
from ramstrans.training import probe as module
from ramstrans.training.config import TrainingConfig
from ramstrans.training.probe import Features, Fit, fit_head, predict
from ramstrans.training.run import prepare, train, train_into
from ramstrans.training.setup import build_accelerator
from tests.tiny import same_state, tiny_run

CPU = torch.device("cpu")
HEAD = ("encoder.model.head.weight", "encoder.model.head.bias")


@pytest.fixture
def probed(colors, tmp_path):
    """Probes `colors` into a folder of that name: what `prepare` gave, and the result."""

    def probe(name="run", *, data=None, progress=lambda *_: None, signals=None, model=None, **training):
        options = {"max_steps": None, "finetune": "head", "probe_cache": tmp_path / "features"}
        data = {"crop": 48, "resize": 48} | (data or {})
        config = tiny_run(colors, "folder", data=data, model=model, training=options | training)
        prepared, folder = prepare(config), tmp_path / name
        folder.mkdir(exist_ok=True)
        accelerator = build_accelerator(prepared.config, folder)
        return prepared, train_into(folder, prepared, accelerator, progress, signals or SignalHandler())

    return probe


def some_features(num_images=23, num_scales=2, width=5, num_classes=3, seed=0):
    """Features that overlap between the classes, one of them constant."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(num_classes, size=num_images)
    values = generator.normal(size=(num_images, num_scales, width)) + 0.5 * labels[:, None, None]
    values = values * [1, 10, 0.1, 1, 1] + [0, 3, 0, -7, 0]
    values[..., 4] = 2.0
    return Features(torch.tensor(values, dtype=torch.float32), torch.tensor(labels))


def minimum_by_scipy(features, l2, scale_weights, class_weights, smoothing):
    """The objective as written down, by loops over images and scales, minimised from other start values."""
    values = features.values.numpy().astype(np.float64)
    labels, (_, _, width), num_classes = features.labels.numpy(), values.shape, len(class_weights)
    mean, std = values.mean(axis=(0, 1)), values.std(axis=(0, 1))
    values = (values - mean) / np.where(std > 0, std, 1)

    def objective(flat):
        weight, bias = flat[: num_classes * width].reshape(num_classes, width), flat[num_classes * width :]
        total = 0.0
        for image, label in zip(values, labels, strict=True):
            for feature, scale_weight in zip(image, scale_weights, strict=True):
                logits = weight @ feature + bias
                log_p = logits - np.log(np.exp(logits).sum())
                loss = -(1 - smoothing) * log_p[label] - smoothing * log_p.mean()
                total += class_weights[label] * scale_weight / sum(scale_weights) * loss
        return total / len(labels) + l2 / 2 * (weight**2).sum()

    start = np.random.default_rng(1).normal(size=num_classes * (width + 1))
    return minimize(objective, start, method="BFGS", options={"gtol": 1e-7}).fun, objective


@pytest.mark.parametrize(
    ("l2", "scale_weights", "class_weights", "smoothing"),
    [
        (1e-2, (1.0, 1.0), (1.0, 1.0, 1.0), 0.0),
        (1e-3, (1.0, 3.0), (0.5, 1.0, 4.0), 0.0),
        (1e-1, (1.0, 0.0), (1.0, 2.0, 1.0), 0.1),
    ],
)
def test_the_head_is_at_the_minimum_of_the_objective(l2, scale_weights, class_weights, smoothing):
    features = some_features()
    fit = fit_head(
        features,
        l2,
        torch.tensor(scale_weights),
        torch.tensor(class_weights),
        label_smoothing=smoothing,
        device=CPU,
    )
    least, objective = minimum_by_scipy(features, l2, scale_weights, class_weights, smoothing)
    values = features.values.double()
    mean, std = values.mean(dim=(0, 1)), values.std(dim=(0, 1), correction=0)
    std[4] = 1e-6  # the constant one, which has no weight
    weight, bias = fit.weight * std, fit.bias + fit.weight @ mean
    assert objective(torch.cat([weight.flatten(), bias]).numpy()) == pytest.approx(least, rel=1e-6)
    assert fit.loss == pytest.approx(least - l2 / 2 * float(weight.square().sum()), rel=1e-4)
    assert fit.has_converged
    assert fit.iterations > 3


def test_a_start_changes_the_way_and_not_the_end():
    features, weights = some_features(), (torch.ones(2), torch.ones(3))
    strong = fit_head(features, 1e-1, *weights, device=CPU)
    cold = fit_head(features, 1e-2, *weights, device=CPU)
    warm = fit_head(features, 1e-2, *weights, device=CPU, start=(strong.weight, strong.bias))
    again = fit_head(features, 1e-2, *weights, device=CPU, start=(cold.weight, cold.bias))
    assert again.iterations <= 1
    for fit in (warm, again):
        probabilities, expected = predict(features, fit), predict(features, cold)
        np.testing.assert_allclose(probabilities, expected, atol=1e-4)


def test_probabilities_by_hand():
    fit = Fit(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([0.0, 1.0]), 0.0, 1, True)
    features = Features(torch.tensor([[[np.log(3) - 1, 9.0], [-1.0, 9.0]]]), torch.tensor([0]))
    np.testing.assert_allclose(predict(features, fit), [[[0.25, 0.75]], [[0.5, 0.5]]], rtol=1e-6)


def test_the_fitted_head_predicts_by_the_model_what_it_did_on_the_features(probed, tmp_path):
    prepared, result = probed()
    initial = prepare(prepared.config).model.state_dict()
    moved = {name for name in initial if not torch.equal(initial[name], result.weights[name])}
    assert moved == set(HEAD)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    [best] = [row for row in rows if row["l2"] == result.l2]
    _, val = prepared.loaders()
    row = module.validation_row(*predict_split(prepared.model, val)[:2])
    assert row["top1_fused"] == best["top1_fused"] == 100
    assert row["loss_scales"] == pytest.approx(best["loss_scales"], rel=1e-2)
    assert (result.chosen_on, result.epoch, result.steps) == ("validation", 1, best["iterations"])
    assert [row["l2"] for row in rows] == list(module.STRENGTHS)
    assert max(rows, key=lambda row: (row["top1_fused"], -row["loss_fused"]))["l2"] == result.l2
    assert "was chosen on 3 validation images" in result.warnings[0]
    assert "or none, and l2 0.01 is taken" in result.warnings[0]


def test_features_are_computed_once_and_read_from_then_on(probed, monkeypatch):
    first = probed("first")[1]
    monkeypatch.setattr(module, "compute_features", None)
    assert same_state(probed("again")[1].weights, first.weights)
    assert probed("other", class_weights="balanced", loss_weights=(1.0, 2.0))[1].l2 > 0


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bf16"},
        {"data": {"resize": 56}},
        {"model": {"thresholds": (1.3, 1.2)}},
        {"model": {"num_scales": 3}},
        {"weights": True},
        {"image": True},
        {"probe_views": 2},
    ],
    ids=str,
)
def test_whatever_features_depend_on_is_in_the_key(probed, tmp_path, monkeypatch, colors, change):
    probed("first")
    computed, compute = [], module.compute_features

    def noted(*arguments):
        computed.append(arguments[3])
        return compute(*arguments)

    monkeypatch.setattr(module, "compute_features", noted)
    if change.pop("weights", False):
        build = prepare

        def changed(config):
            prepared = build(config)
            with torch.no_grad():
                prepared.model.encoder.model.norm.bias[0] += 0.5
            return prepared

        monkeypatch.setitem(globals(), "prepare", changed)
    if change.pop("image", False):
        path = next(path for path in (colors / "train").rglob("*.png"))
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    probed("second", **change)
    assert computed


def test_true_boxes_that_are_looked_at_are_in_the_key(birds):
    probe = {"finetune": "head", "max_steps": None}
    prepared = prepare(tiny_run(birds, model={"region_placement": "given"}, training=probe))
    dataset = prepared.dataset("train")
    other = [dataset.records[0]._replace(box=(1.0, 2.0, 9.0, 9.0)), *dataset.records[1:]]
    moved = replace(dataset, records=other)
    keys = [module.features_key(prepared.model, prepared.config, one, 0) for one in (dataset, moved)]
    assert keys[0] != keys[1]
    found = replace(prepared.config.model, region_placement="found")
    config = replace(prepared.config, model=found)
    keys = [module.features_key(prepared.model, config, one, 0) for one in (dataset, moved)]
    assert keys[0] == keys[1]


def test_a_damaged_file_is_computed_again(probed, tmp_path, caplog):
    first = probed("first")[1]
    for path in (tmp_path / "features").iterdir():
        path.write_bytes(path.read_bytes()[:99])
    assert same_state(probed("second")[1].weights, first.weights)
    assert "is damaged" in caplog.text


def test_views_are_the_centre_and_then_augmented_ones(probed, tmp_path, monkeypatch):
    fitted, fit = [], module.fit_head

    def noted(train, *arguments, **options):
        fitted.append(train)
        return fit(train, *arguments, **options)

    monkeypatch.setattr(module, "fit_head", noted)
    result = probed(probe_views=3, data={"resize": 56})[1]
    assert result.epoch == 3
    values, labels = fitted[0]
    assert values.shape == (27, 2, 24)  # 9 images, two scales
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] * 3
    fitted.clear()
    probed("centre", data={"resize": 56})
    assert torch.equal(fitted[0].values, values[:9])
    assert not torch.allclose(values[9:18], values[:9])
    assert not torch.allclose(values[18:], values[9:18])


def test_without_validation_images_the_strength_is_the_default(probed):
    _, result = probed(data={"val_fraction": 0.0})
    assert result.l2 == module.DEFAULT_STRENGTH
    assert result.chosen_on != "validation"
    assert not result.warnings


def test_a_signal_keeps_the_views_that_are_done(probed, tmp_path, monkeypatch):
    signals = SignalHandler()

    def interrupt(_done, _total, what):
        if "view 2" in what:
            signals.received = 15

    with pytest.raises(StoppedError, match="while features of train images, view 2; go on"):
        probed(progress=interrupt, signals=signals, probe_views=2)
    assert [path.name[:7] for path in (tmp_path / "features").iterdir()] == ["train-0"]
    probed(probe_views=2)
    assert len(list((tmp_path / "features").iterdir())) == 3


def test_a_whole_run(colors, tmp_path, caplog):
    caplog.set_level("INFO", "ramstrans")
    training = {"max_steps": None, "finetune": "head"}
    report = train(prepare(tiny_run(colors, "folder", training=training)), tmp_path / "run")
    assert report["fused"]["top1"] == 100
    assert report["l2"] in module.STRENGTHS
    assert any("was chosen on 3 validation images" in warning for warning in report["warnings"])
    assert len(list((tmp_path / "run" / "features").iterdir())) == 2
    assert (tmp_path / "run" / "report.md").exists()
    assert load_state(tmp_path / "run")
    [line] = [line for line in caplog.messages if line.startswith("l2 0.1: ")]
    assert "iterations, validation loss " in line
    assert line.endswith("best so far")


def test_options_that_a_probe_does_not_use_warn():
    with pytest.warns(UserWarning, match="training.mixup is ignored without training.finetune all or lora"):
        TrainingConfig(finetune="head", mixup=0.2)
    with pytest.warns(UserWarning, match="training.probe_views is ignored without a linear probe"):
        TrainingConfig(finetune="head", train_norms=True, probe_views=2)
    TrainingConfig(finetune="head", train_norms=True, mixup=0.2)


def test_balanced_sampling_is_refused(colors):
    config = tiny_run(colors, "folder", training={"max_steps": None, "finetune": "head"})
    with pytest.raises(ConfigError, match="balanced instead"):
        replace(config, data=replace(config.data, balance=0.5))
    plain = tiny_run(colors, "folder", training={"class_weights": "balanced"})
    with pytest.raises(ConfigError, match="use one"):
        replace(plain, data=replace(plain.data, balance=0.5))

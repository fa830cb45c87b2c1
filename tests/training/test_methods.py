"""Whole runs of every method, from training to explanations."""

import json
import math
import warnings

import pytest
import torch

from ramstrans import Predictor
from ramstrans.cli import main
from ramstrans.errors import ConfigError, DataError, UsageError
from ramstrans.saved.model import load_metadata, load_model, load_state
from ramstrans.training.config import RunConfig, TrainingConfig
from ramstrans.training.contrastive import contrastive_loss
from ramstrans.training.losses import ScaleForward, losses_by_scale
from ramstrans.training.run import prepare, train
from ramstrans.training.step import TrainStep
from tests.models.builders import SIZE, noise, tiny_config, tiny_model
from tests.tiny import same_state, tiny_run

RUNS = {
    "plain": {"method": "plain"},
    "transfg": {"method": "transfg", "patch_stride": 6, "zoom_source": "input"},
    "ffvt": {"method": "ffvt", "num_tokens": 3, "zoom_source": "input"},
    "glsim": {"method": "glsim"},
    "calcrop": {"method": "calcrop"},
    "shared": {"class_tokens": "shared"},
    "given": {"region_placement": "given"},
    "random": {"region_placement": "random"},
}
TWO_LOOKS = ("shared", "given", "random")
every = pytest.mark.parametrize("name", RUNS)


def run_of(name, birds, **training):
    options = {"max_steps": 4, "gradient_accumulation_steps": 2, "checkpoint_every": 1} | training
    return tiny_run(birds, model=RUNS[name], training=options)


@pytest.fixture(scope="module")
def runs(birds, tmp_path_factory):
    """Folders of finished runs, trained when they are first asked for."""
    folder, done = tmp_path_factory.mktemp("methods"), {}

    def trained_run(name):
        if name not in done:
            done[name] = train(prepare(run_of(name, birds)), folder / name)
        return folder / name, done[name]

    return trained_run


@every
def test_a_run_is_saved_judged_and_read_again(name, runs, no_pictures):
    folder, report = runs(name)
    metadata = load_metadata(folder)
    assert metadata.model.method == RUNS[name].get("method", "rams") == report["method"]
    num_scales = 2 if name in TWO_LOOKS else 1
    assert len(report["scales"]) == num_scales
    assert report["regions_used"] == (1 if name in (*TWO_LOOKS, "glsim") else 0)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row for row in rows if row["kind"] == "train"]
    assert len(losses[-1]["loss_scales"]) == (2 if name in (*TWO_LOOKS, "calcrop") else 1)
    assert math.isfinite(losses[-1]["loss"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing that was saved is ignored
        model, _ = load_model(folder, "cpu")
    assert same_state(model.state_dict(), load_state(folder))
    assert main(["evaluate", str(folder), "--device", "cpu"]) == 0
    again = json.loads((folder / "evaluation-test" / "report.json").read_text())
    assert again["fused"] == report["fused"]
    assert again["regions_by_scale"] == report["regions_by_scale"]


@every
def test_a_stopped_run_ends_as_one_that_was_not(name, runs, birds, tmp_path, no_pictures):
    class StoppedError(Exception):
        """In place of a signal."""

    def stop(done, _total, what):
        if what.startswith("epoch") and done == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(prepare(run_of(name, birds)), tmp_path / "run", progress=stop)
    config = run_of(name, birds)
    config = RunConfig(**{**vars(config), "output": tmp_path / "run"})
    train(prepare(config, resumes=True), tmp_path / "run")
    assert same_state(load_state(tmp_path / "run"), load_state(runs(name)[0]))


@pytest.mark.parametrize("name", ["plain", "transfg", "ffvt", "glsim", "calcrop", "random"])
def test_photographs_are_predicted_and_explained(name, runs, birds):
    predictor = Predictor.load(runs(name)[0], "cpu")
    path = next((birds / "images").rglob("*.*g"))
    prediction, explanation = predictor(path), predictor.explain(path)
    assert explanation.prediction.labels == prediction.labels
    assert len(explanation.views.crops) == len(prediction.scales) == (2 if name == "random" else 1)
    assert (explanation.prediction.scales[0].box is not None) == (name in ("glsim", "random"))


def test_both_looks_of_a_model_that_was_trained_with_crops(runs, tmp_path, no_pictures):
    (crops, one), (two_looks, both) = runs("calcrop"), runs("shared")
    assert same_state(load_state(crops), load_state(two_looks))  # they differ in evaluation alone
    out = tmp_path / "out"
    command = ["evaluate", str(crops), "--num_scales", "2", "--device", "cpu", "--output", str(out)]
    assert main(command) == 0
    report = json.loads((out / "report.json").read_text())
    assert (report["fused"], report["scales"]) == (both["fused"], both["scales"])
    assert report["regions_used"] == 1
    assert one["fused"]["top1"] == both["scales"][0]["top1"]


def test_true_boxes_are_the_regions_of_the_report(runs, birds):
    folder, report = runs("given")
    assert report["regions"]["mean_iou"] > 90  # the view cuts off a little
    assert runs("random")[1]["regions"]["mean_iou"] < 60
    with pytest.raises(UsageError, match=r"looks at the true boxes .* give --num_scales 1"):
        Predictor.load(folder, "cpu")
    assert Predictor.load(folder, "cpu", num_scales=1).model.num_scales == 1


def test_true_boxes_must_be_there(colors):
    config = tiny_run(colors, "folder", model={"region_placement": "given"}, data={"val_fraction": 0})
    with pytest.raises(DataError, match=r"looks at the true boxes; 18 of 18 images have none, e.g. "):
        prepare(config)


def test_a_backbone_that_cannot_have_a_method_is_refused_before_images_are_read(tmp_path):
    model = {"method": "ffvt", "backbone": "test_efficientnet", "backbone_options": {}, "image_size": 64}
    with pytest.raises(ConfigError, match=r"model.method ffvt selects tokens between the layers"):
        prepare(tiny_run(tmp_path / "nowhere", model=model | {"zoom_source": "input"}))


def test_transfg_adds_its_contrastive_loss_unless_told_otherwise():
    model, labels = tiny_model(method="transfg"), torch.tensor([0, 1, 0])
    images = noise(3, 3, *SIZE)
    for given, expected in ((None, 1.0), (0.0, 0.0), (0.3, 0.3)):
        step = TrainStep(None, model, None, None, TrainingConfig(contrastive=given), None)
        assert step.contrastive == expected
    assert TrainStep(None, tiny_model(), None, None, TrainingConfig(), None).contrastive == 0
    (loss,) = losses_by_scale(ScaleForward(model), model, images, None, labels, contrastive=1.0)
    stage = model.forward_scale(images, 0, torch.zeros(3, 4), with_region=False)
    cross = torch.nn.functional.cross_entropy(stage.logits, labels)
    torch.testing.assert_close(loss, cross + contrastive_loss(stage.feature, labels))


def test_what_does_not_go_with_a_method_is_refused():
    transfg, glsim = tiny_config(method="transfg"), tiny_config(method="glsim")
    with pytest.raises(ConfigError, match="transfg has a contrastive loss, which needs images of one class"):
        RunConfig(model=transfg, training=TrainingConfig(mixup=0.2))
    RunConfig(model=transfg, training=TrainingConfig(mixup=0.2, contrastive=0.0))
    with pytest.raises(ConfigError, match=r"the aggregator of model.method glsim has to be trained too"):
        RunConfig(model=glsim, training=TrainingConfig(finetune="head"))


@pytest.mark.parametrize("name", ["calcrop", "transfg", "ffvt"])
def test_a_linear_probe_of_a_method(name, birds, tmp_path, no_pictures):
    config = tiny_run(birds, model=RUNS[name], training={"finetune": "head", "max_steps": None})
    report = train(prepare(config), tmp_path / "run")
    assert len(report["scales"]) == 1


def test_the_last_scale_alone_may_be_trained(birds, tmp_path, no_pictures):
    """Weight 0 leaves the first scale's own class token, which no other scale reads, as it began."""
    model = {"class_tokens": "separate", "zoom_source": "input"}
    config = tiny_run(birds, model=model, training={"loss_weights": [0.0, 1.0], "max_steps": 2})
    prepared = prepare(config)
    before = prepared.model.encoder.model.cls_token.detach().clone()
    train(prepared, tmp_path / "run")
    after = load_state(tmp_path / "run")["encoder.model.cls_token"]
    assert torch.equal(after[:, 0], before[:, 0])
    assert not torch.equal(after[:, 1], before[:, 1])


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_scales_are_judged_as_they_were_trained(count, trained, tmp_path, no_pictures):
    out = tmp_path / "out"
    command = ["evaluate", str(trained.folder), "--num_scales", str(count), "--device", "cpu"]
    assert main([*command, "--output", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["scales"] == trained.report["scales"][:count]
    assert (report["num_scales"], report["num_scales_trained"]) == (count, 2)
    assert report["regions_used"] == count - 1
    if count == 1:
        assert report["fused"]["top1"] == trained.report["scales"][0]["top1"]


def test_more_scales_than_were_trained_are_refused_in_a_line(trained, fails):
    folder = str(trained.folder)
    assert "num_scales is 3; this model has 2 scales: give 1 to 2" in fails(
        2, "evaluate", folder, "--num_scales", 3
    )
    line = fails(2, "evaluate", folder, "--num_scales", 1, "--early_exit", "auto")
    assert "--early_exit auto chooses a confidence for all scales" in line
    image = str(trained.prepared.images.records[0].path)
    assert "this model has 2 scales" in fails(2, "predict", folder, image, "--num_scales", 9)
    assert "this model has 2 scales" in fails(2, "explain", folder, image, "--num_scales", 9)


def test_fewer_scales_are_predicted_and_explained(trained, tmp_path, capsys):
    image, folder = str(trained.prepared.images.records[0].path), str(trained.folder)
    assert main(["predict", folder, image, "--num_scales", "1", "--format", "jsonl", "--device", "cpu"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert main(["predict", folder, image, "--format", "jsonl", "--device", "cpu"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert len(one["scales"]) == 1
    assert one["scales"][0]["probabilities"] == pytest.approx(both["scales"][0]["probabilities"], abs=1e-5)
    assert one["probabilities"] == one["scales"][0]["probabilities"]
    target = tmp_path / "why.png"
    command = ["explain", folder, image, "--num_scales", "1", "--output", str(target), "--device", "cpu"]
    assert main(command) == 0
    assert len(json.loads(target.with_suffix(".json").read_text())["scales"]) == 1

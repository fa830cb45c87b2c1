"""Runs from training to explanation with backbones that are not plain ViTs."""

import csv
import json

import pytest

from ramstrans.cli import main
from ramstrans.errors import OutputError
from ramstrans.saved.model import load_model, load_state
from ramstrans.training import loop
from tests.tiny import same_state, write_config

pytestmark = pytest.mark.usefixtures("no_pictures")

EVA = {"embed_dim": 16, "depth": 2, "num_heads": 2}
MODELS = {
    "test_efficientnet": ({"image_size": 64}, "cam"),
    "efficientnet_lite0": ({"image_size": 64, "zoom_source": "full"}, "cam"),
    "vit_small_patch16_dinov3": (
        {"image_size": 48, "global_pool": "token", "zoom_source": "full", "backbone_options": EVA},
        "rollout",
    ),
    "vit_base_patch16_siglip_224": (
        {"image_size": 48, "region_size": 64, "saliency": "pool_attention", "backbone_options": EVA},
        "pool_attention",
    ),
}
STEPS = 7


def train(arguments, monkeypatch, stop_after=None):
    """Train in this process; stops as on a full disk after a step."""
    save = loop.TrainLoop.save_if_due

    def stopping(self, *args, **options):
        result = save(self, *args, **options)
        if self.state.step == stop_after:
            raise OutputError("stopped here")
        return result

    with monkeypatch.context() as patch:
        patch.setattr(loop.TrainLoop, "save_if_due", stopping)
        return main(["train", *map(str, arguments)])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_run_is_resumed_evaluated_predicted_and_explained(name, birds, tmp_path, monkeypatch, capsys):
    fields, saliency = MODELS[name]
    recipe = write_config(
        tmp_path / "recipe.yaml",
        birds,
        model={"backbone": name, "backbone_options": {}} | fields,
        training={
            **{"max_steps": STEPS, "batch_size": 3, "optimizer": "adamw", "lr": 0.003, "warmup_steps": 2},
            **{"ema_decay": 0.5, "checkpoint_every": 2},
        },
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train(["--config", recipe, "--output", whole], monkeypatch) == 0
    assert f"regions by {saliency} of" in capsys.readouterr().err
    assert train(["--config", recipe, "--output", broken], monkeypatch, stop_after=5) == OutputError.exit_code
    assert train(["--resume", broken], monkeypatch) == 0
    assert same_state(load_state(broken), load_state(whole))
    state = load_state(whole)
    statistics = [key for key in state if "running_mean" in key]
    assert bool(statistics) == ("efficientnet" in name)
    assert all(state[key].abs().max() > 0 for key in statistics)  # they are saved, and they have moved

    assert load_model(whole, "cpu").model.saliency_name == saliency
    output = tmp_path / "evaluated"
    assert main(["evaluate", str(whole), "--output", str(output), "--device", "cpu"]) == 0
    reports = [json.loads((folder / "report.json").read_text()) for folder in (whole, output)]
    results = [[*report["scales"], report["fused"]] for report in reports]
    for found, expected in zip(*results, strict=True):
        assert found == {key: pytest.approx(value, rel=1e-6) for key, value in expected.items()}

    images = sorted((birds / "images").glob("*/*"))[:3]
    table = tmp_path / "predicted.csv"
    arguments = ["--device", "cpu", "--output"]
    assert main(["predict", str(whole), *map(str, images), *arguments, str(table)]) == 0
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["error"] for row in rows] == [""] * 3
    assert main(["explain", str(whole), str(images[0]), *arguments, str(tmp_path / "why.png")]) == 0
    explained = json.loads((tmp_path / "why.json").read_text())
    assert explained["labels"][0] == rows[0]["label_1"]
    assert explained["probabilities"][0] == pytest.approx(float(rows[0]["probability_1"]), abs=1e-4)
    grid = {"efficientnet": (2, 2)}.get("efficientnet" if "efficientnet" in name else name, (3, 3))
    assert (len(explained["scales"][0]["saliency"]), len(explained["scales"][0]["saliency"][0])) == grid

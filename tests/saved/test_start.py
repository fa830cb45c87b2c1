"""Starting from a saved model, with hand-made heads and tokens."""

import dataclasses

import pytest
import torch

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import ConfigError, WeightsError
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.build import build_model
from ramstrans.saved.metadata import ModelMetadata, saved_folder
from ramstrans.saved.model import save_model
from ramstrans.saved.start import VIT, build_started, check_model
from tests.tiny import BACKBONE, TINY, same_state

CONFIG = ModelConfig(backbone=BACKBONE, backbone_options=TINY, num_classes=3, image_size=32)
NAMES = ("crow", "owl", "wren")


@pytest.fixture
def saved(tmp_path):
    """A saved model of three birds, and its weights."""
    torch.manual_seed(5)
    model = build_model(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_model(
        tmp_path / "run", model.state_dict(), ModelMetadata(CONFIG, NAMES, Preprocessing(40, (32, 32)))
    )
    return tmp_path / "run", model.state_dict()


def started(folder, names=NAMES, **fields):
    config = dataclasses.replace(CONFIG, weights=folder, num_classes=len(names), **fields)
    check_model(config)
    torch.manual_seed(7)
    return build_started(config, names).state_dict()


def test_the_same_classes_take_everything_by_folder_or_file(saved):
    folder, weights = saved
    assert same_state(started(folder), weights)
    assert same_state(started(str(folder / "model.safetensors")), weights)


def test_rows_of_classes_with_matching_names_are_kept(saved, caplog):
    caplog.set_level("INFO", "ramstrans")
    folder, weights = saved
    state = started(folder, ("wren", "gull", "crow", "tit"))
    for kind in ("weight", "bias"):
        head, before = state[f"{VIT}head.{kind}"], weights[f"{VIT}head.{kind}"]
        assert torch.equal(head[[0, 2]], before[[2, 0]])  # wren, crow
        assert not torch.equal(head[1], before[1])
    rest = {key for key in weights if ".head." not in key}
    assert all(torch.equal(state[key], weights[key]) for key in rest)
    assert (
        "head rows of 2 of 4 classes kept by name, 2 start new (gull, tit), 1 of its 3 are not" in caplog.text
    )


@pytest.mark.parametrize(("num_scales", "rows"), [(1, [0]), (4, [0, 1, 1, 1])])
def test_another_number_of_scales_takes_or_repeats_tokens(saved, num_scales, rows, caplog):
    caplog.set_level("INFO", "ramstrans")
    folder, weights = saved
    state = started(folder, num_scales=num_scales)
    token, position = VIT + "cls_token", VIT + "pos_embed"
    assert torch.equal(state[token], weights[token][:, rows])
    assert torch.equal(state[position], weights[position][:, [*rows, *range(2, 18)]])  # 2 tokens, 16 patches
    assert f"2 scales, now {num_scales}" in caplog.text


def test_another_image_size_resamples_positions(saved, caplog):
    caplog.set_level("INFO", "ramstrans")
    folder, weights = saved
    state = started(folder, image_size=(32, 48))
    assert state[VIT + "pos_embed"].shape == (1, 2 + 4 * 6, 24)
    assert torch.equal(state[VIT + "pos_embed"][:, :2], weights[VIT + "pos_embed"][:, :2])
    assert "positions of 4x4 patches resampled to 4x6" in caplog.text


def test_another_backbone_is_refused_before_anything_is_read(saved):
    folder, _ = saved
    config = dataclasses.replace(CONFIG, weights=folder, backbone="deit_tiny_patch16_224")
    with pytest.raises(
        WeightsError, match=r"is a vit_tiny_patch16_224, not a deit_tiny.*--model\.backbone vit_tiny"
    ):
        check_model(config)
    with pytest.raises(WeightsError, match=r"does not fit this model: .*not the"):
        started(folder, backbone_options=TINY | {"embed_dim": 36})


def test_what_is_wrong_is_told_before_images_are_read(tmp_path, saved):
    (saved[0] / "model.safetensors").unlink()
    for weights, error, said in (
        (tmp_path / "nowhere.pth", WeightsError, "does not exist"),
        (tmp_path, WeightsError, "has no model.safetensors"),
        (saved[0], WeightsError, "has no model.safetensors"),
    ):
        with pytest.raises(error, match=said):
            check_model(dataclasses.replace(CONFIG, weights=weights))
    with pytest.raises(ConfigError, match="did you mean"):
        check_model(dataclasses.replace(CONFIG, backbone="vit_tinny_patch16_224"))


def test_a_saliency_is_checked_without_allocating_a_model():
    check_model(ModelConfig(backbone="test_efficientnet", image_size=64, saliency="cam"))
    with pytest.raises(ConfigError, match=r"saliency is cam, which this ConvNeXt cannot have.*cosine"):
        check_model(ModelConfig(backbone="test_convnext", image_size=64, saliency="cam"))
    with pytest.raises(ConfigError, match="saliency is rollout, which this EfficientNet cannot have"):
        check_model(ModelConfig(backbone="test_efficientnet", image_size=64, saliency="rollout"))


def test_files_of_others_are_not_taken_for_saved_models(tmp_path):
    (tmp_path / "model.safetensors").touch()
    assert saved_folder(tmp_path / "model.safetensors") is None  # no config.json: the hub's own files
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    assert saved_folder(tmp_path) is saved_folder(tmp_path / "model.safetensors") is None
    assert saved_folder("timm") is None
    assert saved_folder(None) is None


def test_a_method_with_parts_of_its_own_keeps_them_and_starts_from_any_other(saved, tmp_path, caplog):
    caplog.set_level("INFO", "ramstrans")
    folder, weights = saved
    state = started(folder, method="glsim")
    assert "aggregator starts new" in caplog.text
    assert torch.equal(state[f"{VIT}cls_token"], weights[f"{VIT}cls_token"][:, :1])
    config = dataclasses.replace(CONFIG, method="glsim")
    save_model(tmp_path / "glsim", state, ModelMetadata(config, NAMES, Preprocessing(40, (32, 32))))
    assert same_state(started(tmp_path / "glsim", method="glsim"), state)
    plain = started(tmp_path / "glsim", method="plain")
    assert "aggregator left out" in caplog.text
    assert plain.keys() == {name for name in state if name.startswith("encoder.")}

"""What is frozen does not move, what is trained does, and LoRA leaves a plain model behind."""

import sys

import pytest
import torch

from ramstrans.errors import ConfigError
from ramstrans.training.config import TrainingConfig
from ramstrans.training.ema import build_ema
from ramstrans.training.losses import ScaleForward, losses_by_scale
from ramstrans.training.optim import build_optimizer
from ramstrans.training.trainable import (
    add_lora,
    freeze_backbone,
    freeze_blocks,
    merged_state_dict,
    set_train_mode,
)
from tests.models.builders import noise
from tests.models.builders import tiny_model as random_model
from tests.tiny import same_state, tiny_model

IMAGES, LABELS = noise(4, 3, 48, 80), torch.tensor([0, 1, 4, 1])


def model_of(**options):
    """Two scales, three blocks, five classes, dropout everywhere that there can be some."""
    return random_model(**{"dropout": 0.2, "drop_path": 0.3, **options})


def trained(model, steps=2, **recipe):
    """Names of the parameters that some steps moved; weight decay moves whatever the optimiser holds."""
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = build_optimizer(model, TrainingConfig(lr=0.01, weight_decay=0.1, **recipe))
    set_train_mode(model)
    for _ in range(steps):
        for loss in losses_by_scale(ScaleForward(model), model, IMAGES, None, LABELS):
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}


def names_of(model, *starts):
    starts = tuple(f"encoder.model.{start}" for start in starts)
    return {name for name, _ in model.named_parameters() if name.startswith(starts)}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_linear_probe_moves_the_head_alone(optimizer):
    model = model_of()
    freeze_backbone(model)
    assert trained(model, optimizer=optimizer) == names_of(model, "head.")


def test_a_probe_may_train_tokens_and_norms():
    model = model_of()
    freeze_backbone(model, tokens=True)
    assert trained(model) == names_of(model, "head.", "cls_token")
    model = model_of()
    freeze_backbone(model, norms=True)
    norms = {name for name, _ in model.named_parameters() if "norm" in name}
    assert len(norms) == 2 * 7
    assert trained(model) == norms | names_of(model, "head.")


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_the_first_blocks_and_what_precedes_them_stay(count):
    model = model_of(backbone_options={"reg_tokens": 2, "pre_norm": True}, drop_path=0.0)
    freeze_blocks(model, count)
    early = ("patch_embed", "norm_pre", "cls_token", "reg_token", "pos_embed") if count else ()
    frozen = names_of(model, *early, *(f"blocks.{index}." for index in range(count)))
    assert trained(model) == {name for name, _ in model.named_parameters()} - frozen


@pytest.mark.parametrize("count", [-1, 4])
def test_blocks_that_there_are_not_cannot_be_frozen(count):
    with pytest.raises(
        ConfigError, match=f"freeze_blocks is {count}; this backbone has 3 blocks: give 0 to 3"
    ):
        freeze_blocks(model_of(), count)


def training_parts(model):
    """Which parts of the ViT are in training mode."""
    vit = model.encoder.model
    blocks = tuple(f"blocks.{index}" for index in range(3))
    names = ("patch_embed", "pos_drop", *blocks, "norm", "head_drop", "head")
    return {name for name in names if vit.get_submodule(name).training}


def test_frozen_parts_are_in_evaluation_mode():
    model = model_of()
    set_train_mode(model.eval())
    everything = training_parts(model)
    assert len(everything) == 8
    freeze_blocks(model, 2)
    set_train_mode(model)
    assert training_parts(model) == everything - {"patch_embed", "pos_drop", "blocks.0", "blocks.1"}
    freeze_backbone(model)
    set_train_mode(model)
    assert training_parts(model) == {"head_drop", "head"}
    assert model.training
    assert not any(part.training for block in model.encoder.model.blocks for part in block.modules())


def test_a_probes_features_are_those_that_it_is_evaluated_with():
    model = model_of()
    freeze_backbone(model)
    set_train_mode(model)
    with torch.no_grad():
        training = model.encoder(IMAGES, 0).pooled
        assert torch.equal(training, model.eval().encoder(IMAGES, 0).pooled)
        assert not torch.equal(training, model.train().encoder(IMAGES, 0).pooled)


def test_stochastic_depth_drops_branches_of_single_images_in_training_alone():
    """The last block's rate is 0.5; a branch that is kept counts twice, so that the mean stays."""
    model = model_of(dropout=0.0, drop_path=0.5)
    path = model.encoder.model.blocks[2].drop_path1
    branches = torch.ones(997, 3, 2)
    set_train_mode(model)
    values = path(branches)
    assert torch.equal(values, values[:, :1, :1].expand(-1, 3, 2))
    assert set(values.unique().tolist()) == {0.0, 2.0}
    assert float(values.mean()) == pytest.approx(1, abs=0.1)
    model.eval()
    assert torch.equal(path(branches), branches)


def test_without_adapters_the_plain_state_is_the_state():
    model = tiny_model()
    state = merged_state_dict(model)
    assert same_state(state, model.state_dict())
    torch.nn.init.zeros_(model.encoder.model.head.weight)
    assert state["encoder.model.head.weight"].abs().max() > 0


def test_a_missing_peft_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"needs peft.*; pip install 'ramstrans\[lora\]'"):
        add_lora(tiny_model())


@pytest.fixture
def peft():
    return pytest.importorskip("peft", reason="peft is not installed")


def adapted(*, mlp=False, **options):
    """A model with adapters that change it."""
    model = model_of(**options)
    add_lora(model, rank=3, alpha=6, mlp=mlp)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.3, generator=generator)
    return model


@torch.no_grad()
def run_model(model):
    return model.eval()(IMAGES)


@pytest.mark.usefixtures("peft")
class TestLora:
    def test_it_starts_as_the_model_was(self):
        model = model_of()
        before, state = run_model(model), merged_state_dict(model)
        add_lora(model)
        for found, expected in zip(run_model(model).scales, before.scales, strict=True):
            assert torch.equal(found.logits, expected.logits)
            assert torch.equal(found.boxes, expected.boxes)
        assert same_state(merged_state_dict(model), state)

    def test_it_is_drawn_by_its_seed_alone(self):
        """Processes have generators of their own, and must draw the same."""
        states = []
        for seed, drawn in ((3, 0), (3, 1), (4, 0)):
            model = model_of()
            torch.manual_seed(drawn)
            add_lora(model, seed=seed)
            assert torch.equal(torch.rand(5), torch.rand(5, generator=torch.Generator().manual_seed(drawn)))
            states.append(model.state_dict())
        assert same_state(states[0], states[1])
        assert not same_state(states[0], states[2])

    @pytest.mark.parametrize("mlp", [False, True])
    def test_it_moves_adapters_and_head_alone(self, mlp):
        model = model_of()
        add_lora(model, rank=3, mlp=mlp)
        moved = trained(model)
        layers = {".attn.qkv.", ".attn.proj."} | ({".mlp.fc1.", ".mlp.fc2."} if mlp else set())
        assert {name for name in moved if ".lora_" not in name} == names_of(model, "head.")
        adapters = {name for name, _ in model.named_parameters() if ".lora_" in name}
        assert len(adapters) == 3 * 2 * len(layers)
        assert moved >= adapters
        assert all(any(layer in name for layer in layers) for name in adapters)

    def test_an_update_has_its_rank_and_scale(self):
        """alpha / rank * B A, worked out for one layer."""
        model = adapted()
        before = model.state_dict()
        name = "encoder.model.blocks.1.attn.qkv"
        down, up = (before[f"{name}.lora_{which}.default.weight"] for which in "AB")
        assert (down.shape, up.shape) == ((3, 24), (72, 3))
        expected = before[f"{name}.base_layer.weight"] + 2 * up @ down
        torch.testing.assert_close(merged_state_dict(model)[f"{name}.weight"], expected)

    def test_queries_keys_and_regions_see_the_adapters(self):
        model, plain = adapted(), model_of()
        with torch.no_grad():
            found, expected = model.encoder(IMAGES, 0), plain.eval().encoder(IMAGES, 0)
        assert len(found.attention) == 3
        assert not torch.allclose(found.attention[0].query, expected.attention[0].query)
        assert not torch.allclose(found.attention[0].key, expected.attention[0].key)
        assert not torch.allclose(run_model(model).scales[0].saliency, run_model(plain).scales[0].saliency)

    @pytest.mark.parametrize("mlp", [False, True])
    @pytest.mark.parametrize("qkv_bias", [False, True])
    def test_the_plain_model_predicts_the_same(self, mlp, qkv_bias):
        options = {"backbone_options": {"qkv_bias": qkv_bias}}
        model, plain = adapted(mlp=mlp, **options), model_of(**options)
        expected, state = run_model(model), merged_state_dict(model)
        assert list(state) == list(plain.state_dict())
        assert not same_state(state, plain.state_dict())
        plain.load_state_dict(state)
        for found, wanted in zip(run_model(plain).scales, expected.scales, strict=True):
            torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found.saliency, wanted.saliency, rtol=1e-4, atol=1e-6)
        again = run_model(model)  # merging changed nothing
        assert torch.equal(again.scales[1].logits, expected.scales[1].logits)

    def test_it_is_resumed_from_its_own_state(self):
        model = adapted()
        other = model_of(seed=3)
        add_lora(other, rank=3, alpha=6)
        other.load_state_dict(model.state_dict())
        assert torch.equal(run_model(other).scales[1].logits, run_model(model).scales[1].logits)

    def test_an_average_of_it_can_be_merged(self):
        model = adapted()
        ema = build_ema(model, 0.9)
        ema.update_parameters(model)
        assert same_state(merged_state_dict(ema.module), merged_state_dict(model))

    def test_dropout_of_adapted_blocks_stays_on(self):
        model = adapted()
        set_train_mode(model)
        assert training_parts(model) == {f"blocks.{index}" for index in range(3)} | {"head_drop", "head"}

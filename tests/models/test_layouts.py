"""Layouts of the original repositories: their names, written down by hand, give the same function."""

import re

import pytest
import timm
import torch

from ramstrans.errors import WeightsError
from ramstrans.models import pretrained
from ramstrans.models.fit import fit
from ramstrans.models.layouts import LAYOUTS
from ramstrans.models.pretrained import load_pretrained

pytestmark = pytest.mark.slow  # test_naming, test_fit and test_convert are the fast ones

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
SWIN = {"img_size": 32, "embed_dim": 8, "depths": (2, 1), "num_heads": (2, 2), "window_size": 4}
CONVNEXT = {"dims": (8, 16, 24, 32), "depths": (1, 2, 1, 1)}


def renamed(state, names):
    """Rename by pairs of regular expression and replacement, which may be None: the tensor is dropped."""
    out = {}
    for key, tensor in state.items():
        new = key
        for pattern, replacement in names.items():
            if replacement is None and re.search(pattern, new):
                break
            new = re.sub(pattern, replacement or "", new)
        else:
            out[new] = tensor
    return out


def dino(state):
    """Training checkpoint: student and teacher with their projection heads."""
    backbone = {f"module.backbone.{key}": tensor for key, tensor in state.items() if "head" not in key}
    head = {
        "module.head.mlp.0.weight": torch.ones(4, 24),
        "module.head.last_layer.weight_g": torch.ones(4, 1),
    }
    student = {key: torch.zeros_like(tensor) for key, tensor in backbone.items()}
    return {"student": student | head, "teacher": backbone | head, "epoch": 99}


def dinov2(state):
    """Training checkpoint: blocks in chunks of two, registers after positions of class token and patches."""
    backbone = {
        re.sub(r"^blocks\.(\d+)", lambda m: f"blocks.{int(m[1]) // 2}.{m[1]}", key): tensor
        for key, tensor in state.items()
    }
    row = torch.full_like(state["cls_token"], 0.25)
    backbone["register_tokens"] = backbone.pop("reg_token")
    backbone["cls_token"] = state["cls_token"] - row
    backbone["pos_embed"] = torch.cat([row, state["pos_embed"]], dim=1)
    backbone["mask_token"] = torch.ones(1, 24)
    return {"teacher": {f"backbone.{key}": tensor for key, tensor in backbone.items()}}


def dinov2_giant(state):
    names = {r"mlp\.fc1": "mlp.w12", r"mlp\.fc2": "mlp.w3"}
    return renamed(state, names) | {"mask_token": torch.ones(1, 24)}


def dinov3(state):
    """Meta's names; a mask hides the keys' bias, whatever its values."""
    names = {
        **{r"^reg_token": "storage_tokens", r"gamma_([12])": r"ls\1.gamma", r"^rope\..*": None},
        **{r"mlp\.fc1_g": "mlp.w1", r"mlp\.fc1_x": "mlp.w2", r"(_bias)$": r"\1"},
    }
    out = renamed(state, names)
    if any("w1" in key for key in out):
        out = renamed(out, {r"mlp\.fc2": "mlp.w3"})
    for key in [key for key in out if key.endswith("q_bias")]:
        block = key.removesuffix("q_bias")
        query, value = out.pop(key), out.pop(f"{block}v_bias")
        out[f"{block}qkv.bias"] = torch.cat([query, torch.full_like(query, 7), value])
        out[f"{block}qkv.bias_mask"] = torch.ones(3 * len(query))
    width = state["cls_token"].shape[-1]
    return out | {"mask_token": torch.ones(1, width), "rope_embed.periods": torch.ones(width // 8)}


def mae(state):
    decoder = {"decoder_embed.weight": torch.ones(8, 24), "decoder_blocks.0.norm1.weight": torch.ones(8)}
    decoder |= {"mask_token": torch.ones(1, 1, 8), "decoder_pos_embed": torch.ones(1, 17, 8)}
    return {"model": state | decoder}


CLIP_NAMES = {
    **{
        r"^patch_embed\.proj": "conv1",
        r"^cls_token": "class_embedding",
        r"^pos_embed": "positional_embedding",
    },
    **{r"^norm_pre": "ln_pre", r"^norm\.": "ln_post.", r"\.norm([12])": r".ln_\1"},
    **{r"^blocks": "transformer.resblocks", r"attn\.qkv\.": "attn.in_proj_", r"attn\.proj": "attn.out_proj"},
    **{r"mlp\.fc1": "mlp.c_fc", r"mlp\.fc2": "mlp.c_proj", r"^head\..*": None},
}


def clip(state):
    """Visual and text tower of OpenAI's CLIP, through DistributedDataParallel."""
    visual = renamed(state, CLIP_NAMES)
    visual["class_embedding"] = visual["class_embedding"].flatten()
    visual["positional_embedding"] = visual["positional_embedding"][0]
    text = {"transformer.resblocks.0.ln_1.weight": torch.ones(5), "logit_scale": torch.ones(())}
    text |= {"token_embedding.weight": torch.ones(9, 5), "positional_embedding": torch.ones(7, 5)}
    tower = {f"visual.{key}": tensor for key, tensor in visual.items()} | text
    tower["visual.proj"] = torch.ones(24, 6)
    return {"state_dict": {f"module.{key}": tensor for key, tensor in tower.items()}}


def perception_encoder(state):
    """Visual tower of PE core, alone, with its attention pool."""
    out = renamed(state, CLIP_NAMES | {r"gamma_([12])": r"ls_\1.gamma", r"^rope\..*": None})
    pool = {r"attn_pool\.latent": "attn_pool.probe", r"attn_pool\.norm\.": "attn_pool.layernorm."}
    out = renamed(out, pool | {r"attn_pool\.proj": "attn_pool.attn.out_proj"})
    for kind in ("weight", "bias"):
        parts = [out.pop(f"attn_pool.{part}.{kind}") for part in ("q", "kv")]
        out[f"attn_pool.attn.in_proj_{kind}"] = torch.cat(parts)
    out["class_embedding"] = out["class_embedding"].flatten()
    out["positional_embedding"] = out["positional_embedding"][0]
    return out | {"proj": torch.ones(24, 6)}


def open_clip_trunk(state):
    """open_clip around a timm model."""
    tower = {f"visual.trunk.{key}": tensor for key, tensor in state.items()}
    return tower | {"visual.head.proj.weight": torch.ones(6, 24), "text.ln_final.weight": torch.ones(5)}


def eva(state):
    """EVA-02's names, as the visual tower of an EVA-CLIP."""
    names = {r"mlp\.norm": "mlp.ffn_ln", r"attn\.norm": "attn.inner_attn_ln", r"mlp\.fc1_g": "mlp.w1"}
    names |= {r"mlp\.fc1_x": "mlp.w2", r"mlp\.fc2": "mlp.w3", r"([qv])_proj\.bias": r"\1_bias"}
    out = renamed(state, names) | {"rope.freqs_cos": torch.ones(16, 12)}
    return {f"visual.{key}": tensor for key, tensor in out.items()} | {"text.ln_final.weight": torch.ones(5)}


def beit(state):
    """Pretraining checkpoint: one table for all blocks, a norm before the pooling, a language-like head."""
    table = state["blocks.0.attn.relative_position_bias_table"]
    out = renamed(state, {r"attn\.relative_position_bias_table": None, r"^fc_norm": "norm", r"^head": None})
    out |= {"rel_pos_bias.relative_position_bias_table": table, "lm_head.weight": torch.ones(9, 24)}
    out["rel_pos_bias.relative_position_index"] = torch.zeros(17, 17, dtype=torch.long)
    return {"module": out | {"mask_token": torch.ones(1, 1, 24)}}


def deit3(state):
    return {"model": renamed(state, {r"ls([12])\.gamma": r"gamma_\1"})}


def swin(state):
    """Microsoft's names: patches are merged at the end of a stage."""
    out = {
        re.sub(r"layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key): tensor
        for key, tensor in state.items()
    }
    out = renamed(out, {r"head\.fc": "head"})
    return {"model": out | {"layers.0.blocks.1.attn_mask": torch.full((4, 16, 16), -100.0)}}


def convnext(state):
    names = {
        **{r"^stem": "downsample_layers.0", r"stages\.(\d)\.downsample": r"downsample_layers.\1"},
        **{r"blocks\.": "", r"conv_dw": "dwconv", r"mlp\.fc": "pwconv", r"mlp\.grn\.weight": "grn.gamma"},
        **{r"mlp\.grn\.bias": "grn.beta", r"^head\.norm": "norm", r"^head\.fc": "head"},
    }
    out = renamed(state, names)
    return {"model": {k: t.reshape(1, 1, 1, -1) if "grn" in k else t for k, t in out.items()}}


def ijepa(state):
    encoder = {f"module.{key}": tensor for key, tensor in state.items() if not key.startswith("head")}
    online = {key: torch.zeros_like(tensor) for key, tensor in encoder.items()}
    return {"encoder": online, "predictor": {"module.mask_token": torch.ones(1)}, "target_encoder": encoder}


def aimv2(state):
    """Apple's names; the gate is called fc1, the other half fc3."""
    names = {
        **{r"^patch_embed\.": "preprocessor.patchifier.", r"^pos_embed": "preprocessor.pos_embed"},
        **{r"^blocks": "trunk.blocks", r"^norm\.": "trunk.post_trunk_norm.", r"norm([12])\.": r"norm_\1."},
        **{r"fc1_g": "fc1", r"fc1_x": "fc3", r"^head.*": None},
    }
    return renamed(state, names)


def radio(state):
    """NVIDIA's names: a linear patch embedding without bias, class token and registers in one."""
    state["patch_embed.proj.bias"].zero_()  # the donor's too
    inner = {key: tensor for key, tensor in state.items() if key.startswith("blocks")}
    inner["patch_generator.embedder.weight"] = state["patch_embed.proj.weight"].flatten(1)
    inner["patch_generator.pos_embed"] = state["pos_embed"]
    inner["patch_generator.cls_token.token"] = torch.cat([state["cls_token"], state["reg_token"]], dim=1)[0]
    outer = {f"radio_model.model.{key}": tensor for key, tensor in inner.items()}
    return outer | {"radio_model.summary_idxs": torch.arange(3), "input_conditioner.norm_mean": torch.ones(3)}


ROPE = VIT | {"embed_dim": 32}
CASES = {
    "DINO": (dino, None, "vit_small_patch16_224", VIT),
    "DINOv2": (dinov2, "DINOv2", "vit_small_patch14_reg4_dinov2", VIT),
    "DINOv2 giant": (dinov2_giant, "DINOv2", "vit_giant_patch14_dinov2", VIT | {"mlp_ratio": 4}),
    "DINOv3": (dinov3, "DINOv3", "vit_small_patch16_dinov3_qkvb", ROPE),
    "DINOv3 gated": (dinov3, "DINOv3", "vit_small_plus_patch16_dinov3_qkvb", ROPE | {"mlp_ratio": 4}),
    "DINOv3 ConvNeXt": (convnext, "ConvNeXt", "convnext_tiny", CONVNEXT),
    "MAE": (mae, "MAE", "vit_base_patch16_224", VIT),
    "CLIP": (clip, "CLIP", "vit_base_patch16_clip_quickgelu_224", VIT),
    "PE": (perception_encoder, "CLIP", "vit_pe_core_tiny_patch16_384", ROPE),
    "open_clip": (open_clip_trunk, None, "vit_base_patch16_siglip_224", VIT),
    "EVA-02": (eva, None, "eva02_base_patch16_clip_224", ROPE | {"mlp_ratio": 4}),
    "I-JEPA": (ijepa, None, "vit_huge_patch14_gap_224", VIT),
    "AIMv2": (aimv2, None, "aimv2_large_patch14_224", VIT),
    "RADIO": (radio, None, "vit_base_patch16_radio_v3", VIT),
    "BEiT": (beit, None, "beit_base_patch16_224", VIT),
    "DeiT III": (deit3, "DeiT III", "deit3_small_patch16_224", VIT),
    "Swin": (swin, None, "swin_tiny_patch4_window7_224", SWIN),
    "Swin V2": (swin, None, "swinv2_tiny_window8_256", SWIN),
    "ConvNeXt V2": (convnext, "ConvNeXt", "convnextv2_tiny", CONVNEXT),
}


def random_model(name, seed, **options):
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=3, **options)
    for key, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in key), std=0.2)
    if "beit" in name:  # one table for all, as the file has it
        for block in model.blocks:
            block.attn.relative_position_bias_table.data.fill_(0.5)
    return model.eval()


@pytest.fixture(autouse=True)
def no_hint(monkeypatch):
    monkeypatch.setattr(pretrained, "closest", lambda *_: "the hint")


@pytest.mark.parametrize("case", CASES)
def test_published_names_give_the_same_function(tmp_path, case):
    inverse, layout, name, options = CASES[case]
    donor, model = random_model(name, 1, **options), random_model(name, 2, **options)
    torch.save(inverse(dict(donor.state_dict())), tmp_path / "w.pth")
    report = load_pretrained(model, name, tmp_path / "w.pth")
    assert report.layout == layout
    assert report.resampled == ()
    assert all("head" in key or "rope" in key for key in report.missing)
    image = torch.randn(2, 3, 32, 32)
    ours, theirs = (net.forward_head(net.forward_features(image), pre_logits=True) for net in (model, donor))
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("case", "unused"),
    [
        ("DINO", {"head.mlp.0.weight", "head.last_layer.weight_g"}),
        ("DINOv2", {"mask_token"}),
        ("MAE", {"mask_token", "decoder_embed.weight", "decoder_blocks.0.norm1.weight", "decoder_pos_embed"}),
        ("BEiT", {"mask_token", "lm_head.weight", "rel_pos_bias.relative_position_index"}),
        ("Swin", {"layers.0.blocks.1.attn_mask"}),
    ],
)
def test_what_is_beside_the_network_is_told_as_unused(tmp_path, case, unused):
    inverse, _, name, options = CASES[case]
    torch.save(inverse(dict(random_model(name, 1, **options).state_dict())), tmp_path / "w.pth")
    report = load_pretrained(random_model(name, 2, **options), name, tmp_path / "w.pth")
    assert set(report.unused) - {"head.weight", "head.bias"} == unused


def test_a_text_tower_and_a_projection_are_unused_by_their_own_names(tmp_path):
    inverse, _, name, options = CASES["CLIP"]
    torch.save(inverse(dict(random_model(name, 1, **options).state_dict())), tmp_path / "w.pth")
    report = load_pretrained(random_model(name, 2, **options), name, tmp_path / "w.pth")
    clashing = {"module.transformer.resblocks.0.ln_1.weight", "module.positional_embedding"}
    assert set(report.unused) == clashing | {"token_embedding.weight", "logit_scale", "proj"}
    assert set(report.missing) == {"head.weight", "head.bias"}


FULL_SIZE = [
    ("DINOv3", "vit_small_patch16_dinov3_qkvb", 224),
    ("DINOv3", "vit_large_patch16_dinov3_qkvb", 448),
    ("DINOv3 gated", "vit_small_plus_patch16_dinov3_qkvb", 224),
    ("DINOv2", "vit_base_patch14_reg4_dinov2", 224),
    ("CLIP", "vit_base_patch16_clip_224", 448),
    ("Swin", "swin_tiny_patch4_window7_224", 448),
    ("ConvNeXt V2", "convnextv2_base", None),
]


@pytest.mark.parametrize(("case", "name", "size"), FULL_SIZE)
def test_published_shapes_fit_the_full_model_at_another_size(case, name, size):
    with torch.device("meta"):
        published = dict(timm.create_model(name).state_dict())
        model = timm.create_model(name, num_classes=7, **({"img_size": size} if size else {}))
        content = CASES[case][0](published)
        while not any(isinstance(value, torch.Tensor) for value in content.values()):
            content = content.get("teacher") or next(iter(content.values()))
        result = fit(content, model, "the file")
    assert result.missing == ()
    assert result.homeless == ()


def test_a_bias_that_the_backbone_lacks_is_an_error_unless_it_is_zero(tmp_path):
    donor = random_model("vit_small_patch16_dinov3_qkvb", 1, **ROPE)
    model = random_model("vit_small_patch16_dinov3", 2, **ROPE)
    torch.save(dinov3(dict(donor.state_dict())), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"blocks\.0\.attn\.q_bias \(32,\) has no place in the model"):
        load_pretrained(model, "vit_small_patch16_dinov3", tmp_path / "w.pth")
    for block in donor.blocks:
        block.attn.q_bias.data.zero_()
        block.attn.v_bias.data.zero_()
    torch.save(dinov3(dict(donor.state_dict())), tmp_path / "w.pth")
    report = load_pretrained(model, "vit_small_patch16_dinov3", tmp_path / "w.pth")
    assert "blocks.0.attn.qkv.bias" in report.unused


@pytest.mark.parametrize(
    ("theirs", "ours", "homeless"),
    [
        ("vit_small_patch14_reg4_dinov2", "vit_small_patch14_dinov2", "reg_token"),
        ("deit3_small_patch16_224", "deit_small_patch16_224", "ls1.gamma"),
        ("vit_base_patch16_clip_224", "vit_base_patch16_224", "norm_pre.weight"),
    ],
)
def test_what_the_network_computes_with_may_not_get_lost(tmp_path, theirs, ours, homeless):
    torch.save(random_model(theirs, 1, **VIT).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"does not fit .*; the hint") as caught:
        load_pretrained(random_model(ours, 2, **VIT), ours, tmp_path / "w.pth")
    assert f"{homeless} " in str(caught.value)


def test_every_layout_has_a_root_that_its_own_rules_rename_or_keep():
    for layout in LAYOUTS.values():
        assert layout.root.endswith(".weight")
        assert all(re.compile(pattern) for pattern in (*layout.renames, *layout.marks))

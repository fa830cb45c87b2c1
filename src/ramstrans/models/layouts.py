"""Foreign layouts of weights, as tables of renames to timm's names.

Layouts that timm reads itself have no renames: its own `checkpoint_filter_fn` follows (`fit.py`). The tables
name queries, keys and values `attn.q`, `.k`, `.v`, gates `mlp.gate` and `.up`, DINOv3's bias `attn.qv.bias`,
and an attention pool's `attn_pool.qkv`; `naming.py` joins or splits these as the model has them.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

Renames = dict[str, str | Callable[[re.Match[str]], str]]

NONE: Mapping[str, str] = MappingProxyType({})


class Layout(NamedTuple):
    """Names of one source.

    Attributes:
        root: A tensor at the top of the network; what stands before it is the prefix.
        renames: Regular expressions and replacements, applied in this order to names under the prefix.
        marks: Regular expressions that names under the prefix must contain too, to tell it from others.
        head: Names beside the network and those that timm has for them.
        keep: A prefix that timm's own reader wants to see.
    """

    root: str
    renames: Mapping[str, str | Callable[[re.Match[str]], str]] = NONE
    marks: tuple[str, ...] = ()
    head: Mapping[str, str] = NONE
    keep: str = ""

    def matches(self, names: Iterable[str]) -> bool:
        """Whether names, without the prefix, are of this layout."""
        text = "\n".join(names)
        return all(re.search(mark, text, re.MULTILINE) for mark in self.marks)


BLOCKS: Renames = {
    r"^embeddings\.cls_token": "cls_token",
    r"^embeddings\.distillation_token": "dist_token",
    r"^embeddings\.position_embeddings": "pos_embed",
    r"^embeddings\.patch_embeddings\.(projection\.)?": "patch_embed.proj.",
    r"^(encoder\.layer|layers)\.": "blocks.",
    r"\.attention\.(?:attention\.|self\.)?([qkv])(?:uery|ey|alue|_proj)\.": r".attn.\1.",
    r"\.attention\.(?:output\.dense|o_proj)\.": ".attn.proj.",
    r"\.layernorm_before\.": ".norm1.",
    r"\.layernorm_after\.": ".norm2.",
    r"\.intermediate\.dense\.": ".mlp.fc1.",
    r"(blocks\.\d+)\.output\.dense\.": r"\1.mlp.fc2.",
    r"^layernorm\.": "norm.",
}
"""Hugging Face's ViT, as files have it and, since version 5, state dicts in memory."""

DINOV2: Renames = BLOCKS | {
    r"^embeddings\.register_tokens": "reg_token",
    r"\.layer_scale([12])\.lambda1": r".ls\1.gamma",
    r"\.mlp\.weights_in\.": ".mlp.fc1.",
    r"\.mlp\.weights_out\.": ".mlp.fc2.",
    r"\.mlp\.(gate|up)_proj\.": r".mlp.\1.",
    r"\.mlp\.down_proj\.": ".mlp.fc2.",
}

DINOV3: Renames = DINOV2 | {
    r"^(?:model\.)?layer\.": "blocks.",
    r"\.layer_scale([12])\.lambda1": r".gamma_\1",
}

BEIT: Renames = BLOCKS | {
    r"\.lambda_([12])$": r".gamma_\1",
    r"(blocks\.\d+)\..*relative_position_bias_table$": r"\1.attn.relative_position_bias_table",
    r"^encoder\.relative_position_bias\.": "rel_pos_bias.",
    r"^pooler\.layernorm\.": "fc_norm.",
}

CLIP: Renames = {
    r"^embeddings\.class_embedding": "cls_token",
    r"^embeddings\.position_embedding\.weight": "pos_embed",
    r"^embeddings\.patch_embedding\.": "patch_embed.proj.",
    r"^pre_layrnorm\.": "norm_pre.",
    r"^encoder\.layers\.": "blocks.",
    r"\.self_attn\.([qkv])_proj\.": r".attn.\1.",
    r"\.self_attn\.out_proj\.": ".attn.proj.",
    r"\.layer_norm([12])\.": r".norm\1.",
    r"^post_layernorm\.": "norm.",
}

OPEN_CLIP: Renames = {
    r"^conv1\.": "patch_embed.proj.",
    r"^class_embedding": "cls_token",
    r"^positional_embedding": "pos_embed",
    r"^ln_pre\.": "norm_pre.",
    r"^transformer\.resblocks\.": "blocks.",
    r"\.ln_([12])\.": r".norm\1.",
    r"\.ls_([12])\.gamma": r".gamma_\1",
    r"^attn_pool\.attn\.in_proj_": "attn_pool.qkv.",
    r"\.attn\.in_proj_": ".attn.qkv.",
    r"^attn_pool\.(attn\.)?out_proj\.": "attn_pool.proj.",
    r"\.attn\.out_proj\.": ".attn.proj.",
    r"^attn_pool\.probe": "attn_pool.latent",
    r"^attn_pool\.layernorm\.": "attn_pool.norm.",
    r"\.mlp\.c_fc\.": ".mlp.fc1.",
    r"\.mlp\.c_proj\.": ".mlp.fc2.",
    r"^ln_post\.": "norm.",
}
"""CLIP's visual tower and its kin; text tower and projection stay aside."""

SIGLIP: Renames = CLIP | {
    r"^head\.probe": "attn_pool.latent",
    r"^head\.attention\.in_proj_": "attn_pool.qkv.",
    r"^head\.attention\.out_proj\.": "attn_pool.proj.",
    r"^head\.layernorm\.": "attn_pool.norm.",
    r"^head\.mlp\.": "attn_pool.mlp.",
}

SWIN: Renames = {
    r"^embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"^embeddings\.norm\.": "patch_embed.norm.",
    r"^encoder\.layers\.": "layers.",
    r"\.attention\.(?:self\.)?([qkv])(?:uery|ey|alue|_proj)\.": r".attn.\1.",
    r"\.attention\.(?:output\.dense|o_proj)\.": ".attn.proj.",
    r"\.attention\..*relative_position_bias_table$": ".attn.relative_position_bias_table",
    r"\.attention\.(?:self\.)?logit_scale": ".attn.logit_scale",
    r"\.attention\.(?:self\.)?continuous_position_bias_mlp\.": ".attn.cpb_mlp.",
    r"\.layernorm_before\.": ".norm1.",
    r"\.layernorm_after\.": ".norm2.",
    r"\.intermediate\.dense\.": ".mlp.fc1.",
    r"(blocks\.\d+)\.output\.dense\.": r"\1.mlp.fc2.",
    r"^layers\.(\d+)\.downsample\.": lambda match: f"layers.{int(match[1]) + 1}.downsample.",
    r"^layernorm\.": "norm.",
}

CONVNEXT: Renames = {
    r"^embeddings\.patch_embeddings\.": "stem.0.",
    r"^embeddings\.layernorm\.": "stem.1.",
    r"^encoder\.": "",
    r"\.downsampling_layer\.": ".downsample.",
    r"\.layers\.": ".blocks.",
    r"\.layer_scale_parameter": ".gamma",
    r"\.dwconv\.": ".conv_dw.",
    r"\.layernorm\.": ".norm.",
    r"\.pwconv([12])\.": r".mlp.fc\1.",
    r"\.grn\.": ".mlp.grn.",
    r"^layernorm\.": "head.norm.",
}

DINOV3_CONVNEXT: Renames = {
    r"^model\.": "",
    r"^stages\.0\.downsample_layers\.": "stem.",
    r"\.downsample_layers\.": ".downsample.",
    r"\.layers\.": ".blocks.",
    r"\.depthwise_conv\.": ".conv_dw.",
    r"\.layer_norm\.": ".norm.",
    r"\.pointwise_conv([12])\.": r".mlp.fc\1.",
}

TORCHVISION_VIT: Renames = {
    r"^conv_proj\.": "patch_embed.proj.",
    r"^class_token": "cls_token",
    r"^encoder\.pos_embedding": "pos_embed",
    r"^encoder\.layers\.encoder_layer_": "blocks.",
    r"\.ln_([12])\.": r".norm\1.",
    r"\.self_attention\.in_proj_": ".attn.qkv.",
    r"\.self_attention\.out_proj\.": ".attn.proj.",
    r"\.mlp\.(?:0|linear_1)\.": ".mlp.fc1.",
    r"\.mlp\.(?:3|linear_2)\.": ".mlp.fc2.",
    r"^encoder\.ln\.": "norm.",
    r"^heads\.head\.": "head.",
}

TORCHVISION_SWIN: Renames = {
    r"^features\.0\.0\.": "patch_embed.proj.",
    r"^features\.0\.2\.": "patch_embed.norm.",
    r"^features\.(\d*[13579])\.": lambda match: f"layers.{int(match[1]) // 2}.blocks.",
    r"^features\.(\d*[02468])\.": lambda match: f"layers.{int(match[1]) // 2}.downsample.",
    r"\.mlp\.0\.": ".mlp.fc1.",
    r"\.mlp\.3\.": ".mlp.fc2.",
    r"^head\.": "head.fc.",
}

TORCHVISION_CONVNEXT: Renames = {
    r"^features\.0\.": "stem.",
    r"^features\.(\d*[13579])\.": lambda match: f"stages.{int(match[1]) // 2}.blocks.",
    r"^features\.(\d*[02468])\.": lambda match: f"stages.{int(match[1]) // 2}.downsample.",
    r"\.block\.0\.": ".conv_dw.",
    r"\.block\.2\.": ".norm.",
    r"\.block\.3\.": ".mlp.fc1.",
    r"\.block\.5\.": ".mlp.fc2.",
    r"\.layer_scale$": ".gamma",
    r"^classifier\.0\.": "head.norm.",
    r"^classifier\.2\.": "head.fc.",
}

CHUNKS: Renames = {
    r"^blocks\.\d+\.(\d+)\.": r"blocks.\1.",
    r"^register_tokens$": "reg_token",
    r"\.mlp\.w12\.": ".mlp.fc1.",
    r"\.mlp\.w3\.": ".mlp.fc2.",
}
"""DINOv2's own names; in training its blocks are in chunks."""

META_DINOV3: Renames = {
    r"^storage_tokens$": "reg_token",
    r"\.ls([12])\.gamma$": r".gamma_\1",
    r"\.attn\.qkv\.bias$": ".attn.qv.bias",
    r"\.mlp\.w1\.": ".mlp.gate.",
    r"\.mlp\.w2\.": ".mlp.up.",
    r"\.mlp\.w3\.": ".mlp.fc2.",
}

HF_PATCH, PATCH = "embeddings.patch_embeddings.projection.weight", "patch_embed.proj.weight"
HF_HEAD = {"classifier.": "head."}

LAYOUTS: dict[str, Layout] = {
    "Hugging Face Swin": Layout(HF_PATCH, SWIN, (r"^embeddings\.norm\.",), {"classifier.": "head.fc."}),
    "Hugging Face BEiT": Layout(HF_PATCH, BEIT, (r"\.lambda_1$",), HF_HEAD),
    "Hugging Face DINOv2": Layout(HF_PATCH, DINOV2, (r"\.layer_scale1\.lambda1$",), HF_HEAD),
    "Hugging Face DeiT": Layout(
        *(HF_PATCH, BLOCKS, (r"^embeddings\.distillation_token$",)),
        {"cls_classifier.": "head.", "distillation_classifier.": "head_dist."} | HF_HEAD,
    ),
    "Hugging Face ViT": Layout(HF_PATCH, BLOCKS, (r"\.layernorm_before\.",), HF_HEAD),
    "Hugging Face DINOv3": Layout(
        "embeddings.patch_embeddings.weight", DINOV3, (r"^embeddings\.register_tokens$",), HF_HEAD
    ),
    "Hugging Face ConvNeXt": Layout(
        "embeddings.patch_embeddings.weight", CONVNEXT, (r"\.dwconv\.",), {"classifier.": "head.fc."}
    ),
    "Hugging Face DINOv3 ConvNeXt": Layout(
        *("stages.0.downsample_layers.0.weight", DINOV3_CONVNEXT, ()),
        {"layer_norm.": "head.norm.", "classifier.": "head.fc."},
    ),
    "Hugging Face CLIP": Layout(
        "embeddings.patch_embedding.weight", CLIP, (r"^embeddings\.class_embedding$",), HF_HEAD
    ),
    "Hugging Face SigLIP": Layout(
        "embeddings.patch_embedding.weight", SIGLIP, (r"^post_layernorm\.",), HF_HEAD
    ),
    "torchvision ViT": Layout("conv_proj.weight", TORCHVISION_VIT, (r"^encoder\.layers\.encoder_layer_0\.",)),
    "torchvision Swin": Layout(
        "features.0.0.weight", TORCHVISION_SWIN, (r"\.relative_position_bias_table$",)
    ),
    "torchvision ConvNeXt": Layout("features.0.0.weight", TORCHVISION_CONVNEXT, (r"\.layer_scale$",)),
    "CLIP ResNet": Layout("conv1.weight", {}, (r"^attnpool\.",), keep="visual."),
    "CLIP": Layout("conv1.weight", OPEN_CLIP, (r"^transformer\.resblocks\.", r"^positional_embedding$")),
    "ConvNeXt": Layout("downsample_layers.0.0.weight", {}, (r"\.dwconv\.",)),
    "DINOv3": Layout(PATCH, META_DINOV3, (r"^storage_tokens$", r"\.attn\.qkv\.")),
    "MAE": Layout(PATCH, {}, (r"^decoder_embed\.",)),
    "DINOv2": Layout(PATCH, CHUNKS, (r"^register_tokens$|^mask_token$", r"\.ls1\.gamma$")),
    "DeiT III": Layout(
        PATCH, {r"\.gamma_([12])$": r".ls\1.gamma"}, (r"^blocks\.0\.gamma_1$", r"\.qkv\.bias$")
    ),
}
"""By name, for the report; the first that matches is taken."""

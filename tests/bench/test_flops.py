import pytest
import torch

from ramstrans.bench.flops import count_macs, macs_by_scale, macs_of
from ramstrans.models.config import ModelConfig
from tests.bench.builders import TINY


def test_a_layer_by_hand():
    layer = torch.nn.Linear(7, 11)
    assert count_macs(lambda: layer(torch.zeros(3, 5, 7))) == 3 * 5 * 7 * 11


def test_a_convolution_by_hand():
    layer = torch.nn.Conv2d(3, 5, 2, stride=2)
    assert count_macs(lambda: layer(torch.zeros(1, 3, 8, 6))) == 4 * 3 * (3 * 2 * 2) * 5


def test_in_place_products_are_counted():
    total = torch.zeros(2, 3, 7)
    assert count_macs(lambda: total.baddbmm_(torch.zeros(2, 3, 5), torch.zeros(2, 5, 7))) == 2 * 3 * 5 * 7


def vit_macs(tokens, classes, *, patches, width=24, depth=3, patch_size=8):
    """Multiply-adds of a plain pass: patches, projections and MLPs, attention, head."""
    embed = patches * 3 * patch_size**2 * width
    layer = 12 * tokens * width**2 + 2 * tokens**2 * width
    return embed + depth * layer + width * classes


@pytest.mark.parametrize("num_scales", [1, 2, 3])
def test_a_model_by_hand(num_scales):
    config = ModelConfig("vit_tiny_patch16_224", 5, (32, 48), num_scales=num_scales, backbone_options=TINY)
    patches, heads, depth, width = 4 * 6, 2, 3, 24
    tokens = patches + num_scales
    rollout = depth * (tokens**2 * width + heads * tokens**2)
    assert macs_of(config) == num_scales * vit_macs(tokens, 5, patches=patches) + (num_scales - 1) * rollout


def test_attention_pooling_by_hand():
    """A query of one token asks all patches; then come its projection and an MLP."""
    config = ModelConfig("vit_base_patch16_siglip_224", 5, (32, 48), num_scales=1, backbone_options=TINY)
    patches, width = 4 * 6, 24
    pool = width**2 + patches * 2 * width**2 + 2 * patches * width + width**2 + 8 * width**2
    assert macs_of(config) == vit_macs(patches, 5, patches=patches) + pool


def test_each_scale_by_hand():
    """An image that exits early has had its region proposed; of fewer scales the last proposes none."""
    config = ModelConfig("vit_tiny_patch16_224", 5, (32, 48), num_scales=3, backbone_options=TINY)
    tokens, depth, width, heads = 4 * 6 + 3, 3, 24, 2
    look, rollout = vit_macs(tokens, 5, patches=24), depth * (tokens**2 * width + heads * tokens**2)
    assert macs_by_scale(config) == [look + rollout, 2 * (look + rollout), 3 * look + 2 * rollout]
    assert macs_by_scale(config, 2) == [look + rollout, 2 * look + rollout]
    assert macs_of(config, 1) == look


def peer(method, **fields):
    return ModelConfig("vit_tiny_patch16_224", 5, (32, 48), method=method, backbone_options=TINY, **fields)


def test_transfg_by_hand():
    """Two layers of all tokens and their attention's row per head; one layer of 3 tokens."""
    patches, width, heads = 7 * 11, 24, 2  # every 4 of 8 pixels
    tokens = patches + 1
    whole = vit_macs(tokens, 5, patches=patches, depth=2)
    last = 12 * 3 * width**2 + 2 * 3**2 * width
    rows = 2 * (tokens**2 * width + heads * tokens**2)
    assert macs_of(peer("transfg", patch_stride=4)) == whole + last + rows


def test_ffvt_by_hand():
    """Two layers of all tokens, one row and one column of scores in each; one layer of 1 + 2 * 5 tokens."""
    patches, width = 4 * 6, 24
    tokens = patches + 1
    last = 12 * 11 * width**2 + 2 * 11**2 * width
    expected = vit_macs(tokens, 5, patches=patches, depth=2) + last + 2 * 2 * tokens * width
    assert macs_of(peer("ffvt", num_tokens=5)) == expected


def test_glsim_by_hand():
    """Two passes, a layer of two tokens, and one head."""
    patches, width = 4 * 6, 24
    aggregator = 12 * 2 * width**2 + 2 * 2**2 * width
    expected = 2 * vit_macs(patches + 1, 5, patches=patches) + aggregator - width * 5
    assert macs_of(peer("glsim")) == expected

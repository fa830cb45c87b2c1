"""TransFG and FFVT: which tokens the last layer sees."""

import numpy as np
import pytest
import torch

from ramstrans.errors import ConfigError
from ramstrans.models.attention import AttentionCall
from ramstrans.models.methods.ffvt import mutual_attention
from ramstrans.models.methods.transfg import part_attention
from tests.models.builders import SIZE, noise, other_model, tiny_model
from tests.models.oracles import float64, mutual_attention_twin, part_attention_twin

METHODS = ("transfg", "ffvt")
both = pytest.mark.parametrize("method", METHODS)


def calls_of(layers=3):
    """Queries and keys of some layers: 2 images, 3 heads, 7 tokens of 4 numbers."""
    return [
        AttentionCall(noise(2, 3, 7, 4, seed=2 * layer), noise(2, 3, 7, 4, seed=2 * layer + 1), 0.5)
        for layer in range(layers)
    ]


def call_with(*heads):
    """A call whose scores are these matrices (N, N), one per head."""
    scores = torch.stack([torch.tensor(head) for head in heads])[None]
    return AttentionCall(scores, torch.eye(scores.shape[-1]).expand_as(scores), 1.0)


def test_part_attention_by_hand():
    first = torch.tensor([[0.2, 0.6, 0.2], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]).log().tolist()
    last = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]]).log().tolist()
    even = torch.zeros(3, 3).tolist()
    rows = part_attention([call_with(first, even), call_with(last, even)])
    # 0.5 (0.2, 0.6, 0.2) + 0.25 (0.1, 0.1, 0.8) + 0.25 (0.3, 0.3, 0.4), and a head of its own
    torch.testing.assert_close(rows, torch.tensor([[[0.2, 0.4, 0.4], [1 / 3] * 3]]))


def test_part_attention_equals_the_products_of_whole_matrices():
    calls = calls_of()
    expected = part_attention_twin([call.query for call in calls], [call.key for call in calls], 0.5)
    np.testing.assert_allclose(part_attention(calls), expected, rtol=1e-5)
    np.testing.assert_allclose(part_attention(calls).sum(dim=2), 1, rtol=1e-5)


def test_mutual_attention_by_hand():
    scores = torch.tensor([[1.0, 2.0, 1.0], [1.0, 7.0, 7.0], [6.0, 7.0, 7.0]]).log().tolist()
    # the class token gives 1/4, 1/2, 1/4; of what it receives, 1/8, 1/8 and 6/8 come from the three
    torch.testing.assert_close(mutual_attention(call_with(scores)), torch.tensor([[1 / 32, 1 / 16, 3 / 16]]))
    both = mutual_attention(call_with(scores, torch.zeros(3, 3).tolist()))
    torch.testing.assert_close(both, (torch.tensor([[1 / 32, 1 / 16, 3 / 16]]) + 1 / 9) / 2)


def test_mutual_attention_equals_the_twin():
    for query, key, scale, _ in calls_of():
        expected = mutual_attention_twin(query, key, scale)
        np.testing.assert_allclose(mutual_attention(AttentionCall(query, key, scale)), expected, rtol=1e-5)


def slow_twin(model, images, method):
    """Logits, and the indices that were selected, layer by layer and image by image."""
    vit = model.encoder.model
    tokens = vit._pos_embed(vit.patch_embed(images))
    outputs, queries, keys = [], [], []
    for block in vit.blocks[:-1]:
        attention = block.attn
        batch, count, width = tokens.shape
        qkv = (
            attention.qkv(block.norm1(tokens)).reshape(batch, count, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        )
        queries.append(qkv[0])
        keys.append(qkv[1])
        tokens = block(tokens)
        outputs.append(tokens)
    scale, rows, chosen = (width // 2) ** -0.5, [], []
    for image in range(batch):
        if method == "transfg":
            row = part_attention_twin(queries, keys, scale)[image]
            indices = [int(head[1:].argmax()) + 1 for head in row]
            picked = [outputs[-1][image, index] for index in indices]
        else:
            weights = [mutual_attention_twin(q, k, scale)[image] for q, k in zip(queries, keys, strict=True)]
            indices = [int(index) + 1 for layer in weights for index in np.argsort(-layer[1:])[:2]]
            layers = [layer for layer in outputs for _ in range(2)]
            picked = [layer[image, index] for layer, index in zip(layers, indices, strict=True)]
        rows.append(torch.stack([tokens[image, 0], *picked]))
        chosen.append(indices)
    last = vit.norm(vit.blocks[-1](torch.stack(rows)))
    return vit.head(last[:, 0]), chosen


@both
def test_a_model_equals_its_slow_twin(method):
    model = tiny_model(method=method, num_tokens=2 if method == "ffvt" else None)
    images = noise(5, 3, *SIZE)
    seen = []
    model.encoder.model.blocks[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        output = model(images)
        logits, chosen = slow_twin(model, images, method)
    torch.testing.assert_close(output.scales[0].logits, logits, rtol=1e-4, atol=1e-4)
    assert len(output.scales) == 1
    assert len({tuple(indices) for indices in chosen}) > 1  # images differ
    assert seen[0].shape[1] == 1 + (2 if method == "transfg" else 2 * 2)  # of 24 or 15 patches


def test_transfg_sees_overlapping_patches_unless_told_otherwise():
    assert tiny_model(method="transfg").encoder.anatomy.grid == (
        3,
        6,
    )  # (48 - 16) / 12 + 1, (80 - 16) / 12 + 1
    assert tiny_model(method="transfg", patch_stride=16).encoder.anatomy.grid == (3, 5)


@both
def test_what_selects_is_shown_as_the_saliency(method):
    model = tiny_model(method=method)
    images = noise(3, 3, *SIZE)
    with torch.no_grad():
        stage = model(images).scales[0]
    assert stage.saliency.shape == (3, *model.encoder.anatomy.grid)
    assert (stage.saliency > 0).all()
    assert stage.boxes.shape == (3, 4)
    assert model(images, last_region=False).scales[0].saliency is None
    assert float64(stage.saliency.sum(dim=(1, 2))).max() < 1  # without the class token's own share


@both
def test_parts_of_a_batch_give_the_same(method):
    model, images = tiny_model(method=method), noise(5, 3, *SIZE)
    with torch.no_grad():
        together = model(images).scales[0].logits
        alone = torch.cat([model(image[None]).scales[0].logits for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@both
@pytest.mark.parametrize("how", ["explicit", "checkpointed"])
def test_gradients_are_the_same_however_attention_is_computed(method, how):
    model, images, found = tiny_model(method=method), noise(3, 3, *SIZE), []
    for changed in (False, True):
        model.zero_grad()
        model.encoder.set_grad_checkpointing(changed and how == "checkpointed")
        stage = model.forward_scale(
            images, 0, torch.zeros(3, 4), with_region=False, explicit_attention=changed and how == "explicit"
        )
        stage.logits.square().sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert all(grad.abs().sum() > 0 for grad in found[0])


@pytest.mark.slow
@both
def test_compiles_into_one_graph(method):
    model, images = tiny_model(method=method), noise(2, 3, *SIZE)
    with torch.no_grad():
        expected = model(images).scales[0]
        found = torch.compile(model, fullgraph=True, backend="eager")(images).scales[0]
    for got, value in zip(found, expected, strict=True):
        torch.testing.assert_close(got, value, rtol=1e-4, atol=1e-4)


@both
@pytest.mark.parametrize("name", ["CNN", "Eva", "SigLIP"])
def test_other_backbones_are_refused_in_one_line(method, name):
    with pytest.raises(
        ConfigError, match=rf"model.method {method} selects tokens .*: take model.method"
    ) as caught:
        other_model(name, method=method, **({"saliency": "auto"} if name == "SigLIP" else {}))
    assert "\n" not in str(caught.value)


@both
def test_another_saliency_is_refused(method):
    model = tiny_model(method=method)
    model.set_saliency("auto")
    with pytest.raises(ConfigError, match=r"saliency is rollout; this method has one of its own"):
        model.set_saliency("rollout")
    with pytest.warns(UserWarning, match="model.saliency is ignored without model.method rams"):
        tiny_model(method=method, saliency="rollout")

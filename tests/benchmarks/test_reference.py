import copy

import pytest
import torch

from benchmarks.reference import ReferenceModel
from tests.models.builders import noise, tiny_model


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_scales": 3},
        {"saliency_rows": "class"},
        {"class_tokens": "separate"},
        {"zoom_margin": 0.2},
    ],
    ids=str,
)
def test_the_reference_computes_the_same(fields):
    model, images = tiny_model(**fields), noise(3, 3, 48, 80)
    reference = ReferenceModel(copy.deepcopy(model))
    with torch.no_grad():
        output, expected = model(images, last_region=False), reference(images)
    assert len(output.scales) == len(expected.scales)
    for one, other in zip(output.scales, expected.scales, strict=True):
        torch.testing.assert_close(other.logits, one.logits, rtol=1e-4, atol=1e-4)
    for one, other in zip(output.scales[:-1], expected.scales[:-1], strict=True):
        torch.testing.assert_close(other.saliency, one.saliency, rtol=1e-4, atol=1e-6)
        assert torch.equal(other.boxes, one.boxes)
        assert torch.equal(other.has_region, one.has_region)
    assert expected.scales[-1].boxes is None
    areas = [(scale.boxes[:, 2:] - scale.boxes[:, :2]).prod(dim=1) for scale in output.scales[:-1]]
    assert areas[0].min() < 48 * 80, "some region is smaller than the image"


def test_it_keeps_every_matrix_of_a_scale_and_none_afterwards():
    reference, seen = ReferenceModel(tiny_model()), []
    reference.saliency = lambda _: seen.append([*reference._kept]) or torch.ones(1, 3, 5)
    with torch.no_grad():
        reference(noise(1, 3, 48, 80))
    assert [matrix.shape for matrix in seen[0]] == [(1, 2, 17, 17)] * 3
    assert torch.allclose(seen[0][0].sum(dim=-1), torch.ones(1, 2, 17))
    assert reference._kept == []

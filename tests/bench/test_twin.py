import copy

import pytest
import torch

from ramstrans.bench.twin import KeepingTwin
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
def test_the_twin_sees_and_answers_what_ours_does(fields):
    model, images = tiny_model(**fields), noise(3, 3, 48, 80)
    twin = KeepingTwin(copy.deepcopy(model))
    with torch.no_grad():
        ours, theirs = model(images, last_region=False), twin(images)
    assert len(ours.scales) == len(theirs.scales)
    for one, other in zip(ours.scales, theirs.scales, strict=True):
        torch.testing.assert_close(other.logits, one.logits, rtol=1e-4, atol=1e-4)
    for one, other in zip(ours.scales[:-1], theirs.scales[:-1], strict=True):
        torch.testing.assert_close(other.saliency, one.saliency, rtol=1e-4, atol=1e-6)
        assert torch.equal(other.boxes, one.boxes)
        assert torch.equal(other.has_region, one.has_region)
    assert theirs.scales[-1].boxes is None
    areas = [(scale.boxes[:, 2:] - scale.boxes[:, :2]).prod(dim=1) for scale in ours.scales[:-1]]
    assert areas[0].min() < 48 * 80, "some region is a region"


def test_the_twin_keeps_every_matrix_of_a_look_and_none_after_it():
    twin, seen = KeepingTwin(tiny_model()), []
    twin.saliency = lambda features: seen.append([*twin._kept]) or torch.ones(1, 3, 5)
    with torch.no_grad():
        twin(noise(1, 3, 48, 80))
    assert [matrix.shape for matrix in seen[0]] == [(1, 2, 17, 17)] * 3
    assert torch.allclose(seen[0][0].sum(dim=-1), torch.ones(1, 2, 17))
    assert twin._kept == []

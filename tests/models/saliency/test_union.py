"""The class activation map of images that may have several labels: the union of all that are predicted."""

import numpy as np
import pytest
import torch

from ramstrans.models.saliency.cam import union_map
from tests.models.builders import noise, other_model


@pytest.fixture(scope="module")
def model():
    return other_model("CNN", multi_label=True, saliency="cam")


def slow_union(model, image):
    """Location by location, in NumPy."""
    features = model.encoder(image[None], 0, num_layers=0, explicit_attention=False)
    head = model.encoder.get_classifier()
    weight = head.weight.detach().numpy().reshape(5, -1)
    locations = features.locations[0].detach().numpy()
    logits = model.encoder.forward_head(features.pooled)[0].detach().numpy()
    present = [c for c in range(5) if 1 / (1 + np.exp(-logits[c])) >= 0.5] or [int(logits.argmax())]
    maps = [np.maximum(locations @ weight[c], 0) for c in present]
    maps = [one / one.max() if one.max() > 0 else one for one in maps]
    return np.max(maps, axis=0).reshape(features.grid), present


@torch.no_grad()
def test_the_union_is_its_slow_twin(model):
    head = model.encoder.get_classifier()
    images = noise(5, 3, 64, 96)
    for shift in (-9.0, 0.0, 9.0):  # none, some and all are predicted
        head.bias.fill_(shift)
        features = model.encoder(images, 0, num_layers=0, explicit_attention=False)
        found = union_map(features, model.encoder)
        for row, image in enumerate(images):
            expected, present = slow_union(model, image)
            assert found[row].numpy() == pytest.approx(expected, abs=1e-5)
        assert len(present) == {-9.0: 1, 9.0: 5}.get(shift, len(present))


@torch.no_grad()
def test_a_model_of_several_labels_takes_the_union_and_sigmoids(model):
    images = noise(3, 3, 64, 96)
    output = model(images)
    features = model.encoder(images, 0, num_layers=0, explicit_attention=False)
    assert torch.equal(output.scales[0].saliency, union_map(features, model.encoder))
    assert torch.equal(output.probabilities[1], output.scales[1].logits.sigmoid())
    assert torch.equal(output.fused, output.probabilities.mean(dim=0))
    one = other_model("CNN", saliency="cam")
    one.load_state_dict(model.state_dict())
    assert not torch.equal(one(images).scales[0].saliency, output.scales[0].saliency)
    assert torch.allclose(one(images).fused.sum(dim=1), torch.ones(3))

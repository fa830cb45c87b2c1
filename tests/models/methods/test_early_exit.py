import numpy as np
import pytest
import torch

from ramstrans.errors import UsageError
from ramstrans.models.methods.early_exit import exit_early
from tests.models.builders import noise, tiny_model

SIZE = (48, 80)


def whole(model, *inputs):
    with torch.no_grad():
        return model(*inputs)


def looks_twin(probabilities, confidence):
    """Looks and answer of one image, from its (S, C) probabilities, one look after the other."""
    for looks in range(1, len(probabilities) + 1):
        mean = np.mean(probabilities[:looks], axis=0)
        if mean.max() >= confidence:
            break
    return looks, mean


@pytest.mark.parametrize("num_scales", [1, 2, 3])
@pytest.mark.parametrize("zoom_source", ["input", "full"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_images_leave_when_sure_and_say_what_they_would_have_said(num_scales, zoom_source, share):
    model = tiny_model(num_scales=num_scales, zoom_source=zoom_source)
    images = noise(11, 3, *SIZE)
    high_res = noise(11, 3, 96, 160, seed=1) if zoom_source == "full" and num_scales > 1 else None
    output = whole(model, images, high_res)
    probabilities = output.probabilities.numpy()
    sure = np.sort(probabilities[0].max(axis=1))
    confidence = float(np.append(sure, 1.1)[round(share * 11)]) - 1e-4  # that share is less sure than this
    early = exit_early(model, images, high_res, confidence=confidence)
    expected = [looks_twin(probabilities[:, image], confidence) for image in range(11)]
    assert early.num_scales_used.tolist() == [looks for looks, _ in expected]
    np.testing.assert_allclose(early.fused, [mean for _, mean in expected], atol=1e-5)
    for scale, (said, places) in enumerate(zip(early.scales, early.indices, strict=True)):
        assert places.tolist() == [image for image in range(11) if expected[image][0] > scale]
        torch.testing.assert_close(said.logits, output.scales[scale].logits[places], rtol=1e-4, atol=1e-4)
        assert (said.boxes is None) == (scale == num_scales - 1)
        if said.boxes is not None:
            torch.testing.assert_close(said.boxes, output.scales[scale].boxes[places], rtol=0, atol=1e-3)


def test_images_that_left_are_not_computed():
    model, seen = tiny_model(num_scales=2), []
    images = noise(7, 3, *SIZE)
    confidences = whole(model, images).probabilities[0].amax(dim=1)
    model.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    exit_early(model, images, confidence=float(confidences.median()) - 1e-5)
    assert sum(seen) == 7 + 3
    seen.clear()
    exit_early(model, images, confidence=1e-9)
    assert sum(seen) == 7
    seen.clear()
    exit_early(model, images, confidence=1.5)
    assert sum(seen) == 14


@pytest.mark.parametrize("confidence", [0, -0.1, float("nan")])
def test_a_confidence_that_cannot_be(confidence):
    with pytest.raises(UsageError, match="give more than 0"):
        exit_early(tiny_model(), noise(1, 3, *SIZE), confidence=confidence)


def test_a_source_must_go_with_the_model():
    with pytest.raises(UsageError, match="'full' and high_res was not given"):
        exit_early(tiny_model(zoom_source="full"), noise(1, 3, *SIZE), confidence=0.5)

"""Regions of changed images: a model that follows a bright spot, one that always looks at the same place."""

import numpy as np
import pytest
import torch

from ramstrans.evaluation.localization import paired_iou
from ramstrans.evaluation.stability import Inputs, outputs_of, regions_of, small_shifts, stability
from ramstrans.models.methods.base import Output, Stage
from tests.models.builders import noise, tiny_model

SIZE = (25, 50)


class Fake:
    """Proposes one box; its answer is class 0 if the middle of the image is bright."""

    num_scales, image_size, device = 1, SIZE, torch.device("cpu")

    def __init__(self, propose):
        self.propose = propose

    def __call__(self, images, high_res=None, *, last_region, boxes=None):
        assert last_region
        is_bright = images[:, 0, 12, 25] > 0.5
        logits = torch.where(is_bright[:, None], torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
        return Output((Stage(logits, logits, None, None, self.propose(images), is_bright),))


def around_the_spot(images):
    boxes = []
    for image in images[:, 0]:
        y, x = (image > 0.5).nonzero().float().T
        boxes.append(torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]))
    return torch.stack(boxes)


def always_left(images):
    return torch.tensor([[0.0, 5.0, 30.0, 15.0]]).expand(len(images), 4)


def spots(*boxes):
    images = torch.zeros(len(boxes), 3, *SIZE)
    for image, (x0, y0, x1, y1) in zip(images, boxes, strict=True):
        image[:, y0:y1, x0:x1] = 1
    return images


def judged(propose, images):
    model, inputs = Fake(propose), Inputs(images, None, None)
    return stability(model, inputs, outputs_of(model, inputs, "fp32"), "fp32")


def test_regions_that_follow_their_object_are_stable():
    """Also where it leaves the image in part: what both images show of it counts."""
    found = judged(around_the_spot, spots((20, 10, 30, 16), (0, 3, 7, 9)))
    assert found.mirror_iou.tolist() == [[1, 1]]
    assert found.shift_iou.tolist() == [[1, 1]]
    assert found.mirror_same.tolist() == [True, True]
    assert found.shift_same.tolist() == [1, 1]


def test_regions_that_stay_are_not():
    """Mirrored (0, 30) becomes (20, 50): 10 of 50 in common; shifts are by 1 down and 2 across."""
    found = judged(always_left, spots((24, 11, 26, 13)))
    assert [tuple(shift) for shift in small_shifts(SIZE)] == [
        *((2, 0, False), (-2, 0, False), (0, 1, False), (0, -1, False)),
    ]
    assert found.mirror_iou[0, 0] == pytest.approx(10 / 50)
    # right: (0, 30) and (-2, 28), within (0, 48): 28 of 30
    # left: (2, 30) and (2, 32), within (2, 50): 28 of 30
    # down: (5, 15) and (4, 14): 9 of 11, up the same
    assert found.shift_iou[0, 0] == pytest.approx((28 / 30 + 28 / 30 + 9 / 11 + 9 / 11) / 4)
    assert (
        found.shift_same[0] == 0.25
    )  # of 2 x 2 pixels, the middle is the lower right: it stays bright once, downwards
    assert found.mirror_same[0]


@pytest.mark.parametrize("num_scales", [1, 3])
def test_a_batch_is_judged_as_image_by_image(num_scales):
    model, images = tiny_model(num_scales=num_scales), noise(5, 3, 48, 80)
    with torch.no_grad():
        inputs = Inputs(images, None, None)
        output = outputs_of(model, inputs, "fp32")
        found = stability(model, inputs, output, "fp32")
        assert found.mirror_iou.shape == found.shift_iou.shape == (max(num_scales - 1, 1), 5)
        mirrored = regions_of(outputs_of(model, Inputs(images.flip(-1), None, None), "fp32"))
        for scale, boxes in enumerate(regions_of(output)):
            for index in range(5):
                x0, y0, x1, y1 = mirrored[scale, index].tolist()
                iou = paired_iou(boxes[index : index + 1].numpy(), np.array([[80 - x1, y0, 80 - x0, y1]]))
                assert found.mirror_iou[scale, index] == pytest.approx(iou[0], abs=1e-5)
        one = Inputs(images[3:4], None, None)
        alone = stability(model, one, outputs_of(model, one, "fp32"), "fp32")
    assert found.shift_iou[:, 3] == pytest.approx(alone.shift_iou[:, 0], abs=1e-5)
    assert 0 < found.mirror_iou.mean() < 1


def test_true_boxes_are_mirrored_too():
    """A model that looks at the true box looks at the same place in the mirrored image."""
    model = tiny_model(region_placement="given")
    boxes = torch.tensor([[5.0, 3.0, 30.0, 40.0], [torch.nan] * 4])
    inputs = Inputs(noise(2, 3, 48, 80), None, boxes)
    with torch.no_grad():
        found = stability(model, inputs, outputs_of(model, inputs, "fp32"), "fp32")
    assert found.mirror_iou[0].tolist() == pytest.approx([1, 1])
    assert found.shift_iou[0].tolist() == pytest.approx([1, 1])

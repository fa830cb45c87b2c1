"""Deletion by hand on images of 4 x 4 pixels, and against a loop over images."""

import numpy as np
import pytest
import torch

from ramstrans.evaluation import faithfulness as module
from ramstrans.evaluation.faithfulness import (
    CURVES,
    MASKS,
    NUM_STEPS,
    FirstLook,
    area_under,
    faithfulness,
    mask_iou,
)
from ramstrans.evaluation.localization import paired_iou
from ramstrans.evaluation.perturbation import blurred, box_mask
from ramstrans.models.methods.boxes import draws_of, moved, whole_image
from tests.models.builders import noise, tiny_model


def corner_look(images):
    """A look that sees class 1 by the upper left quarter alone: its mean is the probability."""
    share = images[:, 0, :2, :2].mean(dim=(1, 2)).clamp(0, 1).numpy()
    return np.stack([1 - share, share], axis=1)


ONES = torch.ones(2, 3, 4, 4)
CORNER = torch.tensor([[0.0, 0.0, 2.0, 2.0], [2.0, 2.0, 4.0, 4.0]])
"""The first image's region is what the look sees; the other's is elsewhere."""


def test_masks_by_hand():
    true_boxes = torch.tensor([[0.0, 0.0, 4.0, 1.0], [torch.nan] * 4])
    found = faithfulness(corner_look, ONES, np.array([1, 1]), CORNER[None], torch.ones(2, 2, 2), true_boxes)
    assert found.whole.tolist() == [True, True]
    assert found.masked[0, :2].tolist() == [[True, False], [False, True]]  # alone; deleted
    assert found.belief[0, :2].tolist() == [[1, 0], [0, 1]]
    # half of what the look sees is left either way, and of two equal classes the first counts
    assert found.true_masked[:, 0].tolist() == [0, 0]
    assert np.isnan(found.true_masked[:, 1]).all()


def test_overlap_of_masks_by_hand():
    first = box_mask(torch.tensor([[0.0, 0.0, 2.0, 4.0], [0.0, 0.0, 1.0, 1.0]]), (4, 4))
    second = box_mask(torch.tensor([[1.0, 0.0, 3.0, 4.0], [2.0, 2.0, 3.0, 3.0]]), (4, 4))
    assert mask_iou(first, second).tolist() == [pytest.approx(4 / 12), 0]
    assert mask_iou(first & ~first, second & ~second).tolist() == [0, 0]


def test_the_moved_box_has_the_same_sides():
    seen = []

    def look(images):
        seen.append(images[:, 0].sum(dim=(1, 2)).tolist())
        return corner_look(images)

    faithfulness(look, ONES, np.array([1, 1]), CORNER[None], torch.ones(2, 2, 2))
    assert seen[1:5] == [[4, 4], [12, 12], [4, 4], [12, 12]]


def test_curves_by_hand():
    """The most salient location of 2 x 2 is all that counts; the last step deletes everything."""
    saliency = torch.tensor([[[9.0, 1.0], [2.0, 3.0]]])
    found = faithfulness(corner_look, ONES[:1], np.array([1]), CORNER[:1][None], saliency)
    assert found.curves.shape == (len(CURVES), NUM_STEPS + 1, 1)
    # of 4 locations, 0.4 (none) go at step 1, 0.8 (one) at step 2
    assert found.curves[0, :, 0].tolist() == [1, 1, *[0] * (NUM_STEPS - 1)]
    assert area_under(found.curves[0, :, 0]) == pytest.approx(1.5 / NUM_STEPS)
    assert (found.curves[1] == 1).all()  # a constant image is its own blur
    assert found.curves_right[0, :, 0].tolist() == [True, True, *[False] * (NUM_STEPS - 1)]


def test_insertion_begins_with_a_blur_and_ends_with_the_image():
    images = noise(3, 3, 4, 4).abs() / 3
    found = faithfulness(corner_look, images, np.zeros(3, int), CORNER[[0, 0, 0]][None], noise(3, 2, 2).abs())
    answers = corner_look(images)
    rows, chosen = np.arange(3), answers.argmax(axis=1)
    assert found.curves[1, 0] == pytest.approx(corner_look(blurred(images))[rows, chosen])
    for insertion, deletion in ((1, 0), (3, 2)):
        assert found.curves[insertion, -1] == pytest.approx(answers[rows, chosen])
        assert found.curves[deletion, 0] == pytest.approx(answers[rows, chosen])
        assert found.curves[deletion, -1] == pytest.approx(np.array([1.0, 0.0])[chosen])


def slow(look, image, label, box, saliency, num_steps):
    """One image, location by location: right by mask, and the four curves."""

    def right(pixels):
        return look(pixels[None])[0].argmax() == label

    height, width = image.shape[1:]
    rows, columns = saliency.shape

    def cut(box):
        inside = torch.zeros(height, width, dtype=torch.bool)
        for y in range(height):
            for x in range(width):
                inside[y, x] = box[0] <= x + 0.5 < box[2] and box[1] <= y + 0.5 < box[3]
        return inside

    other = moved(box[None], whole_image(image[None]), draws_of(image[None]))[0]
    masks = [mask for inside in (cut(box), cut(other)) for mask in (inside, ~inside)]
    answers = [right(image * mask) for mask in masks]
    chosen, blur, curves = look(image[None])[0].argmax(), blurred(image[None])[0], []
    for values in (saliency.flatten().tolist(), draws_of(image[None], rows * columns)[0].tolist()):
        order = sorted(range(rows * columns), key=lambda place: -values[place])
        deletion, insertion = [], []
        for step in range(num_steps + 1):
            gone, added = image.clone(), blur.clone()
            for place in order[: round(step * rows * columns / num_steps)]:
                row, column = divmod(place, columns)
                down = slice(row * height // rows, (row + 1) * height // rows)
                across = slice(column * width // columns, (column + 1) * width // columns)
                gone[:, down, across] = 0
                added[:, down, across] = image[:, down, across]
            deletion.append(look(gone[None])[0][chosen])
            insertion.append(look(added[None])[0][chosen])
        curves += [deletion, insertion]
    return answers, np.array(curves)


def test_a_batch_is_judged_as_image_by_image(monkeypatch):
    monkeypatch.setattr(module, "NUM_STEPS", 4)
    model, images = tiny_model(), noise(3, 3, 48, 80)
    look, labels = FirstLook(model, "fp32"), np.array([0, 1, 2])
    with torch.no_grad():
        stage = model(images).scales[0]
        found = faithfulness(look, images, labels, stage.boxes[None], stage.saliency)
        for index, image in enumerate(images):
            answers, curves = slow(look, image, labels[index], stage.boxes[index], stage.saliency[index], 4)
            assert found.masked[0, :, index].tolist() == answers
            box = stage.boxes[index : index + 1]
            other = moved(box, whole_image(image[None]), draws_of(image[None]))
            iou = paired_iou(box.numpy(), other.numpy())[0]
            assert found.moved_iou[0, index] == pytest.approx(iou, abs=0.03)  # in whole pixels
            assert found.curves[:, :, index] == pytest.approx(curves, abs=1e-4)
    assert len(MASKS) == len(found.masked[0])
    assert found.whole.tolist() == (stage.logits.argmax(dim=1).numpy() == labels).tolist()


def test_draws_are_even_and_do_not_depend_on_their_number_or_the_batch():
    images = noise(7, 3, 8, 8)
    many = draws_of(images, 1000)
    assert torch.equal(many[:, :2], draws_of(images))
    assert torch.equal(many[3:4], draws_of(images[3:4], 1000))
    assert many.mean(dim=1).tolist() == pytest.approx([0.5] * 7, abs=0.05)
    assert (many.std(dim=1) - 12**-0.5).abs().max() < 0.02
    assert len({tuple(row.argsort().tolist()) for row in many}) == 7

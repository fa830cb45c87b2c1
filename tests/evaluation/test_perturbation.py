"""Changes of images against loops over their pixels."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from ramstrans.evaluation.perturbation import (
    BLUR,
    Shift,
    all_shifted,
    blurred,
    box_mask,
    common_window,
    rank_mask,
    ranks_of,
    shifted,
    shifted_back,
    shifted_boxes,
)
from tests.models.builders import noise

SHIFTS = (Shift(right=2), Shift(right=-3), Shift(down=1), Shift(down=-2), Shift(mirrored=True))


def test_masks_of_boxes_by_a_loop():
    rng = np.random.default_rng(0)
    corners = rng.uniform(-2, 9, (17, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 8, (17, 2))], axis=1)
    boxes[0] = (0.5, 0.5, 2.5, 1.5)  # edges on centres: half-open
    found = box_mask(torch.from_numpy(boxes), (5, 7))
    assert found.shape == (17, 1, 5, 7)
    for mask, (x0, y0, x1, y1) in zip(found[:, 0].tolist(), boxes.astype(np.float32).tolist(), strict=True):
        for y in range(5):
            for x in range(7):
                assert mask[y][x] == (x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1)
    assert found[0].sum() == 2


def test_ranks_by_sorting():
    saliency = torch.randint(0, 5, (7, 3, 4), generator=torch.Generator().manual_seed(0)).float()
    for one, ranks in zip(saliency, ranks_of(saliency), strict=True):
        order = sorted(range(12), key=lambda place: (-one.flatten()[place].item(), place))
        assert [ranks.flatten()[place].item() for place in order] == list(range(12))


def test_masks_of_ranks_are_cells_of_an_even_grid():
    ranks = ranks_of(noise(2, 3, 5))
    for count in (0, 1, 7, 15):
        mask = rank_mask(ranks, count, (8, 13))
        for y in range(8):
            for x in range(13):
                cell = ranks[:, int((y + 0.5) * 3 / 8), int((x + 0.5) * 5 / 13)]
                assert (mask[:, 0, y, x] == (cell < count)).all()


def test_the_blur_is_scipys():
    image = noise(1, 3, 48, 64)
    sigma = BLUR * 64
    theirs = gaussian_filter(image[0].numpy(), sigma, mode="mirror", axes=(1, 2), radius=int(3 * sigma))
    assert blurred(image)[0].numpy() == pytest.approx(theirs, abs=1e-5)
    assert blurred(torch.ones(1, 3, 4, 300)).shape == (1, 3, 4, 300)  # the kernel is larger than the image


@pytest.mark.parametrize("shift", SHIFTS)
def test_shifts_by_a_loop(shift):
    image, (height, width) = noise(2, 3, 5, 7), (5, 7)
    moved = shifted(image, shift, (height, width))
    for y in range(height):
        for x in range(width):
            from_x = width - 1 - x if shift.mirrored else min(max(x - shift.right, 0), width - 1)
            from_y = min(max(y - shift.down, 0), height - 1)
            assert (moved[:, :, y, x] == image[:, :, from_y, from_x]).all()


@pytest.mark.parametrize("shift", SHIFTS)
def test_boxes_move_with_the_content_and_back(shift):
    """A bright box, found again by its pixels; what both images show of it is in the common window."""
    size, box = (9, 11), torch.tensor([[4.0, 3.0, 7.0, 6.0]])
    mask = box_mask(box, size).float()
    moved = shifted_boxes(box, shift, size[1])
    assert (box_mask(moved, size) == (shifted(mask, shift, size) > 0)).all()
    assert torch.equal(shifted_back(moved, shift, size[1]), box)
    assert shifted_boxes(torch.full((1, 4), torch.nan), shift, 11).isnan().all()
    window = box_mask(torch.tensor([common_window(shift, size)]).float(), size)[0, 0]
    rows = torch.arange(9)[:, None].expand(9, 11).float()
    columns = torch.arange(11).expand(9, 11).float()
    places = torch.stack([rows, columns])[None]
    seen = {tuple(place) for place in shifted(places, shift, size)[0].flatten(1).T.tolist()}
    assert {(y, x) for y, x in window.nonzero().tolist()} <= seen
    if not shift.mirrored:
        assert window.sum() == (9 - abs(shift.down)) * (11 - abs(shift.right))


def test_what_regions_are_cut_from_moves_as_far():
    shift, size = Shift(right=2), (6, 8)
    image = torch.arange(16).expand(3, 12, 16)
    whole = all_shifted(image[None], shift, size)
    assert whole[0, 0, 0].tolist() == [0] * 4 + list(range(12))  # twice the resolution
    one, other = all_shifted((image, image[:, :, :8]), shift, size)
    assert torch.equal(one, whole[0])
    assert other[0, 0].tolist() == [0, 0, *range(6)]
    assert all_shifted(None, shift, size) is None

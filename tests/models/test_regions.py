import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ramstrans.errors import ConfigError
from ramstrans.models.regions import (
    box_by_moments,
    grow_boxes,
    label_components,
    largest_component,
    propose_regions,
)
from tests.models.oracles import components_twin, grown_twin, largest_twin, region_twin, soft_region_twin

SIDES = [1, 2, 3, 5, 7, 11, 13, 29]


class Masks(NamedTuple):
    """Random masks, each of its own density, to be made of a seed."""

    shape: tuple[int, int]
    densities: list[float]
    seed: int

    def array(self):
        """(B, h, w)."""
        generator = np.random.default_rng(self.seed)
        return np.stack([generator.random(self.shape) < density for density in self.densities])


random_masks = st.builds(
    Masks,
    st.tuples(st.sampled_from(SIDES), st.sampled_from(SIDES)),
    st.lists(st.floats(0, 1), min_size=1, max_size=3),
    st.integers(0, 2**32 - 1),
)


def spiral(height, width, arms=1):
    """Paths that wind inwards with one free patch between windings; two arms do not touch."""
    mask, pitch = np.zeros((height, width), bool), 2 * arms
    for arm in range(arms):
        x = lead = 2 * arm
        top, left, bottom, right = lead, lead, height - 1 - lead, width - 1 - lead
        while top <= bottom and left <= right:
            mask[top, x : right + 1] = True
            mask[top : bottom + 1, right] = True
            mask[bottom, left : right + 1] = True
            top, x = top + pitch, left
            mask[min(top, bottom) : bottom + 1, left] = True
            left, bottom, right = left + pitch, bottom - pitch, right - pitch
    return mask


def serpentine(height, width):
    mask = np.zeros((height, width), bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    return mask


def comb(height, width):
    mask = np.zeros((height, width), bool)
    mask[:, ::2] = mask[-1] = True
    return mask


def random_tree(height, width, seed):
    """A maze without loops: long winding corridors, the worst case of label propagation."""
    generator = np.random.default_rng(seed)
    mask, stack = np.zeros((height, width), bool), [(0, 0)]
    mask[0, 0] = True
    while stack:
        y, x = stack[-1]
        steps = [(0, 2), (2, 0), (0, -2), (-2, 0)]
        inside = [(a, b) for a, b in steps if 0 <= y + a < height and 0 <= x + b < width]
        free = [(a, b) for a, b in inside if not mask[y + a, x + b]]
        if not free:
            stack.pop()
            continue
        a, b = free[generator.integers(len(free))]
        mask[y + a // 2, x + b // 2] = mask[y + a, x + b] = True
        stack.append((y + a, x + b))
    return mask


def adversarial(height, width):
    y, x = np.mgrid[:height, :width]
    return {
        "all": np.ones((height, width), bool),
        "none": np.zeros((height, width), bool),
        "checkerboard": (y + x) % 2 == 0,
        "isolated": (y % 2 == 0) & (x % 2 == 0),
        "rows": y % 2 == 0,
        "diagonal": y == x,
        "antidiagonals": (y + x) % 5 == 0,
        "staircase": (y + x) % 7 < 2,
        "spiral": spiral(height, width),
        "double spiral": spiral(height, width, arms=2),
        "serpentine": serpentine(height, width),
        "comb": comb(height, width),
        "maze": random_tree(height, width, seed=2),
        "another maze": random_tree(height, width, seed=6),
        "first patch": (y == 0) & (x == 0),
        "last patch": (y == height - 1) & (x == width - 1),
        "ring and dot": (np.maximum(abs(y - height // 2), abs(x - width // 2)) % 4 == 0),
    }


def every_turn(mask):
    """The mask, mirrored and upside down: components must not depend on where labels start."""
    return np.ascontiguousarray(np.stack([mask, mask[::-1], mask[:, ::-1], mask[::-1, ::-1]]))


def check_components(masks):
    labels = label_components(torch.from_numpy(masks)).numpy()
    largest = largest_component(torch.from_numpy(masks)).numpy()
    outside = np.arange(masks[0].size).reshape(masks[0].shape)
    for mask, label, chosen in zip(masks, labels, largest, strict=True):
        assert np.array_equal(label, np.where(mask, components_twin(mask), outside))
        assert np.array_equal(chosen, largest_twin(mask))


@settings(max_examples=80)
@given(random_masks)
def test_components_of_random_masks_are_scipys(drawn):
    check_components(drawn.array())


@pytest.mark.parametrize("name", adversarial(1, 1))
@pytest.mark.parametrize("shape", [(1, 1), (1, 31), (29, 1), (2, 3), (13, 17), (28, 28), (29, 31)])
def test_components_of_adversarial_masks_are_scipys(name, shape):
    check_components(every_turn(adversarial(*shape)[name]))


def test_a_large_maze_takes_many_rounds():
    check_components(random_tree(101, 103, seed=0)[None])  # five of them; the 29 x 31 mazes take four


def test_the_spirals_are_long_paths():
    single, double = spiral(29, 31), spiral(29, 31, arms=2)
    assert len(set(components_twin(single)[single])) == 1
    assert len(set(components_twin(double)[double])) == 2
    assert max(walk_length(mask) for mask in (single, serpentine(29, 31))) > 400


def walk_length(mask):
    """Steps from the first patch of a mask to the farthest one it reaches."""
    reached = np.zeros_like(mask)
    reached.flat[np.flatnonzero(mask)[0]] = True
    for step in range(mask.size):
        padded = np.pad(reached, 1)
        height, width = mask.shape
        wider = mask & np.any(
            [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0
        )
        if np.array_equal(wider, reached):
            return step
        reached = wider
    return mask.size


@settings(max_examples=80)
@given(
    random_masks,
    st.sampled_from([0.5, 1.2, 1.3, 3.0]),
    st.sampled_from(["count", "saliency"]),
    st.integers(0, 2**32 - 1),
)
def test_regions_are_the_slow_twins_and_inside_the_image(drawn, threshold, component, seed):
    masks, generator = drawn.array(), np.random.default_rng(seed)
    # powers of two, the highest too: shares of it, their sums and ties are exact
    saliency = np.float32(2.0 ** (2 * masks + generator.integers(0, 2, masks.shape)))
    size = (16 * saliency.shape[1], 14 * saliency.shape[2])
    boxes, found = propose_regions(torch.from_numpy(saliency), size, threshold, component=component)
    assert boxes.dtype == torch.float32
    for one, box, hit in zip(saliency, boxes.tolist(), found.tolist(), strict=True):
        assert (tuple(box), hit) == region_twin(one, size, threshold, component=component)
        x0, y0, x1, y1 = box
        assert 0 <= x0 < x1 <= size[1]
        assert 0 <= y0 < y1 <= size[0]


@settings(max_examples=80)
@given(
    random_masks,
    st.sampled_from([0.509, 1.217, 2.917]),  # no mean of such saliency times one of these is a patch's value
    st.sampled_from([((16, 14), None), ((7, 32), None), ((16, 14), (9, 14)), ((5, 5), (4, 1))]),
    st.integers(0, 2**32 - 1),
)
def test_soft_regions_are_the_slow_twins_and_inside_the_image(drawn, threshold, patches, seed):
    masks, generator = drawn.array(), np.random.default_rng(seed)
    saliency = np.float32(2.0 ** (2 * masks + generator.integers(0, 2, masks.shape)))
    patch, stride = patches
    steps = stride or patch
    size = tuple(
        side + (count - 1) * step for side, count, step in zip(patch, masks.shape[1:], steps, strict=True)
    )
    boxes, found = propose_regions(
        torch.from_numpy(saliency),
        size,
        threshold,
        component="soft",
        patch_size=patch if stride else None,
        patch_stride=stride,
    )
    assert boxes.dtype == torch.float32
    for one, box, hit in zip(saliency, boxes.tolist(), found.tolist(), strict=True):
        expected, stands_out = soft_region_twin(one, size, threshold, patch, stride)
        assert hit == stands_out
        assert box == pytest.approx(expected, abs=1e-2)
        x0, y0, x1, y1 = box
        assert 0 <= x0 < x1 <= size[1]
        assert 0 <= y0 < y1 <= size[0]


def test_a_soft_region_by_hand():
    # centres 8 and 72, three to one: mean 24, variance 3/4 16^2 + 1/4 48^2 + 16^2/12 = 2368/3
    boxes, _ = box_by_moments(torch.tensor([[[3.0, 0, 0, 0, 1, 0, 0, 0]]]), (16, 128))
    assert boxes[0].tolist() == pytest.approx([0, 0, 24 + math.sqrt(2368), 16])
    # above 0.5 times the mean of 1: 2.5 and 0.5, so that the third patch counts a sixth
    boxes, _ = propose_regions(torch.tensor([[[0, 3.0, 1, 0]]]), (9, 40), 0.5, component="soft")
    mean, variance = 15 + 10 / 6, 100 * 5 / 36 + 100 / 12
    reach = math.sqrt(3 * variance)
    assert boxes[0].tolist() == pytest.approx([mean - reach, 0, mean + reach, 9])


def test_a_soft_region_of_equal_patches_is_their_box():
    saliency = torch.zeros(1, 6, 8)
    saliency[:, 1:4, 2:7] = 0.3
    box = propose_regions(saliency, (96, 128)).boxes
    torch.testing.assert_close(propose_regions(saliency, (96, 128), component="soft").boxes, box)


def test_a_soft_region_moves_little_where_a_component_jumps():
    saliency = torch.tensor([[[0.5, 0.5, 0, 0, 0.5, 0.5, 0, 0]]]).repeat(2, 1, 1)
    saliency[1, 0, 5] -= 0.251  # under the threshold, 1.2 times a mean of 0.219
    jumped = propose_regions(saliency, (16, 128)).boxes
    assert (jumped[0] - jumped[1]).abs().max() == 0
    saliency[1, 0, 5], saliency[1, 0, 1] = 0.5, 0.249
    jumped = propose_regions(saliency, (16, 128)).boxes
    assert jumped[:, 0].tolist() == [0, 64]
    gradual = saliency[:1] + torch.linspace(0, 1, 101)[:, None, None] * (saliency[1:] - saliency[:1])
    boxes = propose_regions(gradual, (16, 128), component="soft").boxes
    assert boxes.diff(dim=0).abs().max() < 0.5
    assert (boxes[0] - boxes[-1]).abs().max() > 5


@pytest.mark.parametrize("component", ["count", "saliency", "soft"])
@pytest.mark.parametrize(
    "saliency",
    [
        torch.full((3, 5), 0.7),
        torch.zeros(3, 5),
        torch.full((3, 5), math.nan),
        torch.full((3, 5), math.inf),
        torch.full((3, 5), 3e38),  # the sum overflows
        torch.arange(15.0).view(3, 5).index_fill(1, torch.tensor([2]), math.nan),
        torch.arange(15.0).view(3, 5).index_fill(1, torch.tensor([2]), math.inf),
        torch.arange(15.0).view(3, 5).index_fill(1, torch.tensor([2]), -math.inf),
    ],
)
def test_whole_image_where_nothing_stands_out_and_others_are_not_touched(saliency, component):
    good = torch.zeros(3, 5).index_put((torch.tensor([1]), torch.tensor([3])), torch.tensor(1.0))
    boxes, found = propose_regions(torch.stack([good, saliency, good]), (48, 80), component=component)
    expected = torch.tensor([[48.0, 16, 64, 32], [0, 0, 80, 48], [48, 16, 64, 32]])
    torch.testing.assert_close(boxes, expected)
    assert boxes[1].tolist() == [0, 0, 80, 48]
    assert found.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": float("nan")}, "threshold is nan; give a number above 0"),
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"threshold": float("inf")}, "threshold is inf"),
        ({"component": "largest"}, "component is 'largest'; give count, saliency or soft"),
    ],
)
def test_what_no_region_can_be_proposed_by(options, message):
    with pytest.raises(ConfigError, match=message):
        propose_regions(torch.ones(1, 2, 2), 32, **options)


def test_threshold_is_a_multiple_of_the_mean_and_strict():
    saliency = torch.tensor([[[4.0, 1.0, 1.0, 2.0]]])  # mean 2
    assert propose_regions(saliency, (16, 64), 0.75).boxes.tolist() == [[0, 0, 16, 16]]
    assert propose_regions(saliency, (16, 64), 1.0).boxes.tolist() == [[0, 0, 16, 16]]
    assert propose_regions(saliency, (16, 64), 0.5).boxes.tolist() == [[0, 0, 16, 16]]  # 1 is not above 1
    assert propose_regions(saliency, (16, 64), 0.25).boxes.tolist() == [[0, 0, 64, 16]]
    assert propose_regions(saliency, (16, 64), 2.0).has_region.tolist() == [False]


def test_of_equally_large_components_the_first_in_raster_order():
    # both have two patches; the right one starts in the upper row, so it is met first
    saliency = torch.tensor([[[0.0, 0.0, 0.0, 9.0], [9.0, 0.0, 0.0, 9.0], [9.0, 0.0, 0.0, 0.0]]])
    assert propose_regions(saliency, (48, 64)).boxes.tolist() == [[48, 0, 64, 32]]


def test_counts_patches_not_saliency():
    saliency = torch.tensor([[[90.0, 0.0, 20.0, 20.0, 0.0, 0.0, 0.0, 0.0, 0.0]]])
    assert propose_regions(saliency, (16, 144)).boxes.tolist() == [[32, 0, 64, 16]]


def test_or_saliency_not_patches():
    saliency = torch.tensor([[[90.0, 0.0, 20.0, 20.0, 0.0, 0.0, 0.0, 0.0, 0.0]]])
    boxes, _ = propose_regions(saliency, (16, 144), component="saliency")
    assert boxes.tolist() == [[0, 0, 16, 16]]
    tie = torch.tensor([[[0.0, 20.0, 20.0, 0.0, 40.0, 0.0, 0.0, 0.0, 0.0]]])  # the first in raster order
    assert propose_regions(tie, (16, 144), component="saliency").boxes.tolist() == [[16, 0, 48, 16]]


@pytest.mark.parametrize("factor", [1e-30, 1.0, 1e30])
def test_summed_saliency_has_no_scale(factor):
    saliency = factor * torch.tensor([[[0.0, 9.0, 0.0], [0.0, 0.0, 0.0], [0.0, 4.0, 4.0], [0.0, 0.0, 0.0]]])
    assert propose_regions(saliency, (40, 30), component="saliency").boxes.tolist() == [[10, 0, 20, 10]]
    assert propose_regions(saliency, (40, 30)).boxes.tolist() == [[10, 20, 30, 30]]
    soft, same = (
        propose_regions(one, (40, 30), component="soft").boxes for one in (saliency, saliency / factor)
    )
    torch.testing.assert_close(soft, same)


@pytest.mark.parametrize(
    ("box", "options", "grown"),
    [
        ((0.4, 0.4, 0.6, 0.6), {}, (0.4, 0.4, 0.6, 0.6)),
        ((0.4, 0.4, 0.6, 0.6), {"min_side": 0.5}, (0.25, 0.25, 0.75, 0.75)),
        ((0.0, 0.4, 0.1, 1.0), {"min_side": 0.5}, (0.0, 0.4, 0.5, 1.0)),  # shifted inside
        ((0.8, 0.9, 1.0, 1.0), {"min_side": 0.5}, (0.5, 0.5, 1.0, 1.0)),
        ((0.3, 0.3, 0.4, 0.4), {"min_side": 1}, (0, 0, 1, 1)),
        ((0.0, 0.5, 0.8, 0.6), {"max_aspect": 2}, (0.0, 0.35, 0.8, 0.75)),
        ((0.5, 0.0, 0.6, 0.8), {"max_aspect": 2}, (0.35, 0.0, 0.75, 0.8)),
        ((0.0, 0.9, 1.0, 1.0), {"max_aspect": 1}, (0, 0, 1, 1)),
        ((0.0, 0.2, 0.4, 0.4), {"max_aspect": 2}, (0.0, 0.2, 0.4, 0.4)),  # just 2 to 1
        # a wide image, twice as wide as high: 0.4 by 0.4 is 2 to 1 in pixels, 0.1 by 0.8 is 1 to 4
        ((0.2, 0.2, 0.6, 0.6), {"max_aspect": 2, "width_by_height": 2}, (0.2, 0.2, 0.6, 0.6)),
        ((0.4, 0.0, 0.5, 0.8), {"max_aspect": 2, "width_by_height": 2}, (0.35, 0.0, 0.55, 0.8)),
        ((0.0, 0.0, 1.0, 0.2), {"max_aspect": 1.5, "width_by_height": 2}, (0.0, 0.0, 1.0, 1.0)),  # 2 to 1
        (
            (0.4, 0.4, 0.5, 0.5),
            {"min_side": 0.3, "max_aspect": 1, "width_by_height": 2},
            (0.3, 0.15, 0.6, 0.75),
        ),
    ],
)
def test_boxes_grow_as_worked_by_hand(box, options, grown):
    assert grow_boxes(torch.tensor([box]), **options)[0].tolist() == pytest.approx(grown, abs=1e-6)


@settings(max_examples=150)
@given(st.data())
def test_grown_boxes_are_the_slow_twins_and_keep_what_they_promise(data):
    corners = data.draw(st.lists(st.integers(0, 63), min_size=4, max_size=4))
    (x0, x1), (y0, y1) = sorted(corners[::2]), sorted(corners[1::2])
    box = torch.tensor([[x0, y0, x1 + 1, y1 + 1]]) / 64
    min_side = data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    aspect = data.draw(st.sampled_from([None, 1, 1.5, 3]))
    ratio = data.draw(st.sampled_from([1, 1.5, 0.4]))
    grown = grow_boxes(box, min_side=min_side, max_aspect=aspect, width_by_height=ratio)
    assert grown[0].tolist() == pytest.approx(grown_twin(box[0], min_side, aspect, ratio), abs=1e-5)
    x0, y0, x1, y1 = grown[0].tolist()
    assert 0 <= x0 < x1 <= 1
    assert 0 <= y0 < y1 <= 1
    assert (grown[0, :2] <= box[0, :2]).all()
    assert (grown[0, 2:] >= box[0, 2:]).all()
    assert min(x1 - x0, y1 - y0) >= min_side - 1e-6
    width, height = (x1 - x0) * ratio, y1 - y0
    shorter = x1 - x0 if width < height else y1 - y0
    assert aspect is None or max(width, height) <= aspect * min(width, height) + 1e-5 or shorter == 1
    if min_side == 0 and aspect is None:
        assert torch.equal(grown, box)


def test_overlapping_patches_by_hand():
    # 64 x 52 pixels in patches of 16 every 12: 5 rows at 0, 12, .. 48 and 4 columns at 0, 12, 24, 36
    saliency = torch.zeros(2, 5, 4)
    saliency[0, 1:3, 2] = 1  # rows at 12 and 24, the last ends at 40; column at 24, ends at 40
    saliency[1, 4, 3] = 1  # at (48, 36), ends at (64, 52)
    boxes, found = propose_regions(saliency, (64, 52), patch_size=(16, 16), patch_stride=(12, 12))
    assert boxes.tolist() == [[24, 12, 40, 40], [36, 48, 52, 64]]
    assert found.tolist() == [True, True]


def test_overlapping_patches_that_leave_a_rest_at_the_edge():
    # 71 = 16 + 4 * 12 + 7: the last patch ends at 64, not at the edge
    saliency = torch.zeros(1, 5, 5)
    saliency[0, 4, 4] = 1
    regions = propose_regions(saliency, (71, 71), patch_size=(16, 16), patch_stride=(12, 12))
    assert regions.boxes.tolist() == [[48, 48, 64, 64]]


@settings(max_examples=50)
@given(random_masks, st.sampled_from([(16, 14), (7, 32)]), st.integers(1, 7), st.integers(1, 7))
def test_overlapping_patches_are_the_slow_twins(drawn, patch, down, across):
    masks = drawn.array()
    rows, columns = masks.shape[1:]
    size = (patch[0] + (rows - 1) * down, patch[1] + (columns - 1) * across)
    saliency = np.float32(masks)
    boxes, found = propose_regions(
        torch.from_numpy(saliency), size, patch_size=patch, patch_stride=(down, across)
    )
    for one, box, hit in zip(saliency, boxes.tolist(), found.tolist(), strict=True):
        assert (tuple(box), hit) == region_twin(one, size, 1.2, patch, (down, across))


def test_takes_no_gradient():
    assert not propose_regions(torch.rand(1, 3, 5).requires_grad_(), (48, 80)).boxes.requires_grad


def test_a_square_image_may_be_given_by_its_side():
    saliency = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(propose_regions(saliency, 70).boxes, propose_regions(saliency, (70, 70)).boxes)

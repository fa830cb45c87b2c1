"""Pixels are held against pooled ones, shares against counted pixels."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ramstrans.models.methods.boxes import whole_image
from ramstrans.training.mixing import Mixing, draw_mixing, mix, mixing_generator, partner_shares
from tests.models.builders import noise

SIZE = (48, 80)
SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed, num_images=5, size=SIZE, **options):
    return draw_mixing(num_images, size, np.random.default_rng(seed), **options)


def cutmix(rectangle, partners=(1, 2, 0), size=SIZE):
    x0, y0, x1, y1 = rectangle
    return Mixing(torch.tensor(partners), (x1 - x0) * (y1 - y0) / math.prod(size), rectangle)


@given(SEEDS, st.integers(2, 23), st.tuples(st.integers(1, 97), st.integers(1, 97)), st.floats(0.05, 20))
def test_a_cutmix_is_a_permutation_and_the_share_of_its_rectangle(seed, num_images, size, alpha):
    partners, share, (x0, y0, x1, y1) = drawn(seed, num_images, size, cutmix=alpha)
    assert sorted(partners.tolist()) == list(range(num_images))
    assert 0 <= x0 <= x1 <= size[1]
    assert 0 <= y0 <= y1 <= size[0]
    assert share == (x1 - x0) * (y1 - y0) / math.prod(size)


@given(SEEDS, st.integers(2, 23), st.floats(0.05, 20))
def test_a_mixup_is_a_permutation_and_a_share(seed, num_images, alpha):
    partners, share, rectangle = drawn(seed, num_images, mixup=alpha)
    assert sorted(partners.tolist()) == list(range(num_images))
    assert 0 <= share <= 1
    assert rectangle is None


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixups_share_follows_the_beta_distribution(alpha):
    shares = [drawn(seed, mixup=alpha).share for seed in range(499)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_cutmixs_rectangle_follows_lambda_where_no_edge_cuts_it():
    """Its centre is uniform, its sides sqrt(1 - lambda) of the image's: alike in both directions."""
    size, inner = (997, 1499), 0
    for seed in range(199):
        x0, y0, x1, y1 = drawn(seed, size=size, cutmix=1.0).rectangle
        if x0 > 0 and y0 > 0 and x1 < size[1] and y1 < size[0]:
            inner += 1
            assert (x1 - x0) / size[1] == pytest.approx((y1 - y0) / size[0], abs=0.003)
    assert inner > 20
    sides = [drawn(seed, size=size, cutmix=1e6).rectangle for seed in range(199)]  # lambda is 1/2
    widest = max(x1 - x0 for x0, _, x1, _ in sides)
    assert widest == pytest.approx(math.sqrt(0.5) * size[1], rel=0.01)
    middles = [(x0 + x1) / 2 / size[1] for x0, _, x1, _ in sides]
    assert np.mean(middles) == pytest.approx(0.5, abs=0.05)


def test_both_ways_take_turns_and_some_batches_are_left_alone():
    kinds = [drawn(seed, mixup=1.0, cutmix=1.0, probability=0.6) for seed in range(499)]
    left = sum(mixing is None for mixing in kinds) / 499
    pasted = sum(mixing is not None and mixing.rectangle is not None for mixing in kinds) / 499
    assert left == pytest.approx(0.4, abs=0.07)
    assert pasted == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize(
    ("num_images", "options"),
    [(5, {}), (5, {"mixup": 1.0, "probability": 0.0}), (1, {"mixup": 1.0}), (1, {"cutmix": 1.0})],
)
def test_nothing_is_mixed_where_it_is_off_or_there_is_no_partner(num_images, options):
    assert all(drawn(seed, num_images, **options) is None for seed in range(7))


def test_a_batchs_random_numbers_are_its_own():
    """Other than any other batch's, and than those of views, which are seeded by three numbers too."""
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0, 1), (1, 2, 3)]
    first = [mixing_generator(*place).random() for place in places]
    assert first == [mixing_generator(*place).random() for place in places]
    views = [np.random.default_rng([seed, epoch, index]).random() for seed, epoch, index, *_ in places]
    assert len({*first, *views}) == len(first) + len(set(views))


def test_a_draw_is_a_pure_function_of_its_generator():
    state = torch.get_rng_state()
    first, again = (drawn(3, mixup=0.8, cutmix=1.0) for _ in range(2))
    assert torch.equal(first.partners, again.partners)
    assert first[1:] == again[1:]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("mixing", [cutmix((10, 4, 31, 40)), Mixing(torch.tensor([1, 2, 0]), 0.3)])
@pytest.mark.parametrize("ratio", [(1, 1), (2, 2), (3, 2)])
def test_both_resolutions_are_mixed_alike(mixing, ratio):
    """The source pooled to the input's resolution is the input, before and after."""
    high_res = noise(3, 3, SIZE[0] * ratio[0], SIZE[1] * ratio[1])
    images = F.avg_pool2d(high_res, ratio)
    before = images.clone(), high_res.clone()
    mixed, mixed_source = mix(images, high_res, mixing)
    torch.testing.assert_close(F.avg_pool2d(mixed_source, ratio), mixed)
    assert not torch.equal(mixed, images)
    assert torch.equal(images, before[0])
    assert torch.equal(high_res, before[1])


def test_a_rectangle_is_rounded_where_resolutions_do_not_divide():
    high_res = torch.arange(3.0).view(3, 1, 1, 1).expand(-1, 3, 61, 97)  # SIZE times 1.27 and 1.21
    _, mixed = mix(torch.zeros(3, 3, *SIZE), high_res, cutmix((10, 4, 31, 40)))
    rows, columns = (mixed[0, 0] == 1).nonzero().T
    assert (rows.min(), rows.max() + 1) == (round(4 * 61 / 48), round(40 * 61 / 48))
    assert (columns.min(), columns.max() + 1) == (round(10 * 97 / 80), round(31 * 97 / 80))


def test_a_missing_source_stays_missing_and_an_own_partner_changes_nothing():
    images = noise(3, 3, *SIZE)
    for mixing in (Mixing(torch.arange(3), 0.37), cutmix((3, 5, 60, 48), (0, 1, 2))):
        mixed, high_res = mix(images, None, mixing)
        assert high_res is None
        assert torch.equal(mixed, images)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_of_mixup_are_the_images_themselves(share):
    images = noise(3, 3, 5, 7)
    mixed, _ = mix(images, None, Mixing(torch.tensor([1, 2, 0]), share))
    assert torch.equal(mixed, images[[1, 2, 0]] if share else images)


def test_a_batch_of_another_length_is_our_own_mistake():
    with pytest.raises(AssertionError, match="another length"):
        mix(noise(2, 3, *SIZE), None, cutmix((0, 0, 3, 3)))


def intervals(side):
    return st.tuples(st.integers(0, side - 1), st.integers(1, side)).map(
        lambda pair: (pair[0], max(pair[1], pair[0] + 1))
    )


RECTANGLES = st.tuples(intervals(SIZE[1]), intervals(SIZE[0])).map(
    lambda sides: (sides[0][0], sides[1][0], sides[0][1], sides[1][1])
)


@given(RECTANGLES, st.lists(RECTANGLES, min_size=1, max_size=7))
def test_a_looks_share_is_that_of_the_pixels_that_it_sees(rectangle, boxes):
    """Counted: 1 where pasted, 0 elsewhere, mean over each box."""
    x0, y0, x1, y1 = rectangle
    pasted = np.zeros(SIZE)
    pasted[y0:y1, x0:x1] = 1
    expected = [pasted[top:bottom, left:right].mean() for left, top, right, bottom in boxes]
    found = partner_shares(cutmix(rectangle), torch.tensor(boxes, dtype=torch.float32))
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


@given(RECTANGLES)
def test_a_look_at_the_whole_image_has_the_whole_share(rectangle):
    mixing = cutmix(rectangle)
    shares = partner_shares(mixing, whole_image(torch.zeros(3, 3, *SIZE)))
    assert shares.tolist() == pytest.approx([mixing.share] * 3)


def test_mixups_share_is_the_same_everywhere():
    boxes = torch.tensor([[0.0, 0.0, 3.0, 3.0], [7.0, 5.0, 80.0, 48.0]])
    assert partner_shares(Mixing(torch.tensor([1, 0]), 0.3), boxes).tolist() == pytest.approx([0.3, 0.3])


@given(SEEDS)
def test_a_rectangle_of_no_area_has_no_share(seed):
    y = int(np.random.default_rng(seed).integers(49))
    assert partner_shares(cutmix((5, y, 9, y)), torch.tensor([[0.0, 0.0, 80.0, 48.0]])).tolist() == [0]

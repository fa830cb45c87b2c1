"""Geometry is held against painted pixels, numbers are worked by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as F

from ramstrans.data.geometry import FILL, Geometry
from ramstrans.data.loading.transforms import (
    Augmentation,
    erase,
    jitter_color,
    make_view,
    rand_augment,
)
from ramstrans.data.preprocessing import Preprocessing, Reading
from ramstrans.data.reading.resize import resize_in_memory

ORIGINAL, RESIZED, CROP, INPUT = (40, 60), (60, 75), (48, 56), (24, 42)  # (height, width)
PREPROCESSING = Preprocessing(RESIZED, CROP)


def painted(x0, y0, x1, y1):
    """A black image with a white block, resized unequally: 1.25 across, 1.5 down."""
    pixels = np.zeros((*ORIGINAL, 3), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    return resize_in_memory(Image.fromarray(pixels), Reading(RESIZED)).pixels


def centroid(image):
    """`(x, y)` of what is bright, in pixels whose centres are at halves."""
    weight = image[0].double()
    y, x = torch.meshgrid(*(torch.arange(side) + 0.5 for side in weight.shape), indexing="ij")
    return float((x * weight).sum() / weight.sum()), float((y * weight).sum() / weight.sum())


def view_of(resized, seed=None, **options):
    augmentation = None if seed is None else Augmentation(**options)
    generator = None if seed is None else np.random.default_rng(seed)
    return make_view(resized, ORIGINAL, PREPROCESSING, INPUT, augmentation=augmentation, generator=generator)


def test_the_geometry_of_a_centre_view_is_as_worked_by_hand():
    geometry = view_of(painted(0, 0, 1, 1)).geometry
    assert geometry == Geometry((0.9375, 0.75), (6.75, 3.0), 42.0, flip=False)
    assert geometry.to_original(np.array([0, 0, 42, 24])) == pytest.approx([7.2, 4, 52, 36])


def test_a_mirrored_box_is_counted_from_the_right():
    mirrored = Geometry((0.9375, 0.75), (6.75, 3.0), 42.0, flip=True)
    assert mirrored.to_original(np.array([0, 0, 10, 24])) == pytest.approx([38.75 / 0.9375, 4, 52, 36])


def test_a_painted_block_is_found_where_the_geometry_says():
    resized, flips = painted(18, 10, 26, 18), set()
    for seed in (None, *range(11)):
        view = view_of(resized, seed)
        x, y = centroid(view.image)
        found = view.geometry.to_original(np.array([x, y, x, y]))
        assert found[:2] == pytest.approx([22, 14], abs=0.15), f"seed {seed}"
        source_x, source_y = centroid(view.high_res)
        assert (source_x * 42 / 56, source_y * 24 / 48) == pytest.approx((x, y), abs=0.15)
        flips.add(view.geometry.flip)
    assert flips == {True, False}


@pytest.mark.parametrize(("fit", "resize"), [("crop", 60), ("squash", (60, 75)), ("pad", (60, 75))])
def test_whatever_the_fit_a_block_is_found_where_the_geometry_says(fit, resize):
    pixels = np.zeros((*ORIGINAL, 3), np.uint8)
    pixels[16:24, 26:34] = 255
    preprocessing = Preprocessing(resize, CROP, fit)
    image = resize_in_memory(Image.fromarray(pixels), Reading(resize, fit))
    for seed in (None, *range(11)):
        augmentation = None if seed is None else Augmentation()
        generator = None if seed is None else np.random.default_rng(seed)
        view = make_view(*image, preprocessing, INPUT, augmentation=augmentation, generator=generator)
        x, y = centroid((view.image > 140) * view.image.double())
        found = view.geometry.to_original(np.array([x, y, x, y]))
        assert found[:2] == pytest.approx([30, 20], abs=1), f"seed {seed}"
        assert seed is None or tuple(view.high_res.shape[1:]) == CROP


def test_squash_and_pad_see_the_whole_image_and_crop_its_centre():
    image = Image.new("RGB", (100, 40), "white")
    seen = {}
    for fit, resize in (("crop", 40), ("squash", (40, 40)), ("pad", (40, 40))):
        view = make_view(
            *resize_in_memory(image, Reading(resize, fit)), Preprocessing(resize, (40, 40), fit), (40, 40)
        )
        seen[fit] = view.geometry.to_original(np.array([0.0, 0.0, 40.0, 40.0])).tolist()
        white = (view.image == 255).all(dim=0)
        assert white.sum() == (16 * 40 if fit == "pad" else 40 * 40)
    assert seen == {"crop": [30, 0, 70, 40], "squash": [0, 0, 100, 40], "pad": [0, -30, 100, 70]}


@given(
    scale=st.tuples(st.floats(0.1, 8), st.floats(0.1, 8)),
    offset=st.tuples(st.floats(0, 300), st.floats(0, 300)),
    flip=st.booleans(),
    corner=st.tuples(st.floats(0, 500), st.floats(0, 500)),
    sides=st.tuples(st.floats(1, 500), st.floats(1, 500)),
)
def test_to_original_undoes_the_view(scale, offset, flip, corner, sides):
    box = np.array([*corner, corner[0] + sides[0], corner[1] + sides[1]])
    x0, y0, x1, y1 = box * (scale * 2) - np.array(offset * 2)
    if flip:
        x0, x1 = 53 - x1, 53 - x0
    boxes = np.array([[[x0, y0, x1, y1]]])
    back = Geometry(scale, offset, 53.0, flip).to_original(boxes)
    assert back.shape == boxes.shape
    assert back[0, 0] == pytest.approx(box, abs=1e-6)


def test_a_view_without_augmentation_is_the_centre():
    resized = torch.arange(3 * 60 * 75).remainder(251).to(torch.uint8).reshape(3, 60, 75)
    view = make_view(resized, ORIGINAL, PREPROCESSING, CROP)
    assert torch.equal(view.image, resized[:, 6:54, 9:65])
    assert torch.equal(view.high_res, view.image)


def test_random_crops_reach_both_ends_and_stay_inside():
    resized, five = torch.zeros(3, 7, 5, dtype=torch.uint8), Preprocessing((7, 5), (5, 5))
    offsets = {
        make_view(resized, (7, 5), five, (5, 5), augmentation=Augmentation(), generator=rng).geometry.offset
        for rng in map(np.random.default_rng, range(23))
    }
    assert offsets == {(0.0, 0.0), (0.0, 1.0), (0.0, 2.0)}


def test_nothing_is_mirrored_or_coloured_unless_asked():
    resized = painted(18, 10, 26, 18)
    for seed in range(7):
        view = view_of(resized, seed, flip=False)
        assert not view.geometry.flip
        assert set(view.high_res.unique().tolist()) <= set(resized.unique().tolist())


def test_an_augmentation_needs_a_generator():
    with pytest.raises(AssertionError, match="generator"):
        make_view(painted(0, 0, 9, 9), ORIGINAL, PREPROCESSING, INPUT, augmentation=Augmentation())


def test_a_crop_larger_than_the_image_is_our_own_mistake():
    with pytest.raises(AssertionError, match="smaller than the crop"):
        make_view(torch.zeros(3, 31, 31, dtype=torch.uint8), (31, 31), Preprocessing(37, (37, 23)), (37, 23))


CHANGES = {
    "none": {},
    "color": {"color_jitter": 0.3},
    "rand": {"rand_augment": 3, "rand_magnitude": 15},
    "erasing": {"random_erasing": 1.0},
    "all": {"color_jitter": 0.3, "rand_augment": 2, "random_erasing": 0.5},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("seed", range(5))
def test_views_do_not_depend_on_the_layout_in_memory(seed, changes):
    planes = torch.from_numpy(np.random.default_rng(7).integers(0, 256, (3, 61, 83), dtype=np.uint8))
    pixels = planes.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    before = pixels.clone()
    one, other = (view_of(layout, seed, flip=True, **changes) for layout in (planes, pixels))
    assert torch.equal(one.image, other.image)
    assert torch.equal(one.high_res, other.high_res)
    assert torch.equal(pixels, before)


def test_brightness_stays_in_its_range():
    grey = torch.full((3, 5, 7), 100, dtype=torch.uint8)  # contrast and saturation leave it as it is
    levels = set()
    for seed in range(97):
        jittered = jitter_color(grey, 0.3, np.random.default_rng(seed))
        assert len(jittered.unique()) == 1
        levels.add(int(jittered[0, 0, 0]))
    assert 69 <= min(levels) < 76
    assert 124 < max(levels) <= 130


def test_a_strength_above_one_never_inverts():
    bright = torch.full((3, 2, 2), 200, dtype=torch.uint8)
    for seed in range(13):
        assert jitter_color(bright, 2.0, np.random.default_rng(seed)).dtype == torch.uint8


def test_jitter_is_a_pure_function_of_its_generator():
    image = painted(3, 5, 31, 23)
    first, again, other = (jitter_color(image, 0.4, np.random.default_rng(seed)) for seed in (5, 5, 7))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def colourful(height=61, width=83, seed=7):
    """Smooth, so that an operation shows; no pixel of it is of the colour that erases."""
    small = np.random.default_rng(seed).integers(130, 256, (3, 5, 7), dtype=np.uint8)
    return F.resize(torch.from_numpy(small), [height, width], antialias=True)


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_both_scales_see_the_same_change(changes):
    for seed in range(11):
        view = view_of(colourful(), seed, **changes)
        assert torch.equal(view.image, F.resize(view.high_res, list(INPUT), antialias=True))


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_view_is_a_pure_function_of_its_generator(changes, monkeypatch):
    def seeded(_):
        raise AssertionError("PyTorch was seeded, GPUs and all")

    monkeypatch.setattr(torch, "manual_seed", seeded)
    state, resized = torch.get_rng_state(), colourful()
    before = resized.clone()
    first = view_of(resized, 5, **changes)
    torch.rand(3)
    again, other = view_of(resized, 5, **changes), view_of(resized, 7, **changes)
    assert torch.equal(first.high_res, again.high_res)
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.high_res, other.high_res)
    assert torch.equal(resized, before)
    torch.set_rng_state(state)
    view_of(resized, 5, **changes)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_off_draws_nothing():
    """Place and mirror, as ever: with the later options off their runs can be repeated."""
    rng, twin = np.random.default_rng(3), np.random.default_rng(3)
    view = make_view(colourful(), ORIGINAL, PREPROCESSING, INPUT, augmentation=Augmentation(), generator=rng)
    top, left, flip = int(twin.integers(14)), int(twin.integers(28)), bool(twin.random() < 0.5)
    cut = colourful()[:, top : top + 48, left : left + 56]
    assert torch.equal(view.high_res, cut.flip(-1) if flip else cut)
    assert rng.random() == twin.random()


def test_rand_augment_does_more_with_more_magnitude_and_operations():
    image = colourful()

    def change(num_ops, magnitude):
        seeds = range(41)
        changed = [rand_augment(image, num_ops, magnitude, np.random.default_rng(seed)) for seed in seeds]
        assert all(one.shape == image.shape and one.dtype == torch.uint8 for one in changed)
        return np.mean([(one.float() - image.float()).abs().mean() for one in changed])

    assert change(2, 1) < change(2, 9) < change(2, 30)
    assert change(1, 9) < change(4, 9)
    assert torch.equal(rand_augment(image, 0, 9, np.random.default_rng(0)), image)


def test_what_rand_augment_moves_in_is_the_filling():
    """Turned and shifted pictures of white have corners of it; other operations keep or darken white."""
    white = torch.full((3, 61, 83), 255, dtype=torch.uint8)
    filled = 0
    for seed in range(61):
        changed = rand_augment(white, 1, 30, np.random.default_rng(seed)).flatten(1).T
        filled += bool((changed == torch.tensor(FILL)).all(dim=1).any())
    assert 10 < filled < 40  # 5 of 14 operations


def test_erasing_takes_one_rectangle_of_2_to_33_percent():
    image, areas = colourful(), []
    for seed in range(97):
        erased = erase(image, 1.0, np.random.default_rng(seed))
        gone = (erased == torch.tensor(FILL)[:, None, None]).all(dim=0)
        rows, columns = gone.any(dim=1), gone.any(dim=0)
        assert torch.equal(gone, rows[:, None] & columns)
        assert torch.equal(erased[:, ~gone], image[:, ~gone])
        assert len(rows.nonzero()) == rows.nonzero().max() - rows.nonzero().min() + 1
        areas.append(float(gone.float().mean()))
    assert 0.01 < min(areas) < 0.06
    assert 0.28 < max(areas) < 0.34


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_erasing_happens_as_often_as_said(probability):
    image = colourful()
    taken = [
        not torch.equal(erase(image, probability, np.random.default_rng(seed)), image) for seed in range(499)
    ]
    assert np.mean(taken) == pytest.approx(probability, abs=0.07 if probability == 0.3 else 0)


def test_both_scales_see_the_same_erased_rectangle():
    for seed in range(7):
        view = view_of(colourful(), seed, random_erasing=1.0)
        gone = (view.high_res == torch.tensor(FILL)[:, None, None]).all(dim=0)
        share = F.resize(gone.float()[None], list(INPUT), antialias=True)[0]  # of each pixel of the input
        assert (share > 0.999).any()
        assert view.image[:, share > 0.999].float().T.sub(torch.tensor(FILL)).abs().max() <= 1
        assert (view.image[:, share < 0.001] > 128).all()

"""Geometry is held against painted pixels, numbers are worked by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as F

from ramstrans.data.transforms import (
    Augmentation,
    Geometry,
    jitter_color,
    make_view,
    normalize,
    resize_photograph,
    resized_size,
)

ORIGINAL, RESIZED, CROP, INPUT = (40, 60), (60, 75), (48, 56), (24, 42)  # (height, width)


def painted(x0, y0, x1, y1):
    """A black photograph with a white block, resized unequally: 1.25 across, 1.5 down."""
    pixels = np.zeros((*ORIGINAL, 3), np.uint8)
    pixels[y0:y1, x0:x1] = 255
    return resize_photograph(Image.fromarray(pixels), RESIZED)


def centroid(image):
    """`(x, y)` of what is bright, in pixels whose centres are at halves."""
    weight = image[0].double()
    y, x = torch.meshgrid(*(torch.arange(side) + 0.5 for side in weight.shape), indexing="ij")
    return float((x * weight).sum() / weight.sum()), float((y * weight).sum() / weight.sum())


def view_of(resized, seed=None, **options):
    augmentation = None if seed is None else Augmentation(**options)
    generator = None if seed is None else np.random.default_rng(seed)
    return make_view(resized, ORIGINAL, CROP, INPUT, augmentation=augmentation, generator=generator)


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
        source_x, source_y = centroid(view.source)
        assert (source_x * 42 / 56, source_y * 24 / 48) == pytest.approx((x, y), abs=0.15)
        flips.add(view.geometry.flip)
    assert flips == {True, False}


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
    view = make_view(resized, ORIGINAL, (48, 56), (48, 56))
    assert torch.equal(view.image, resized[:, 6:54, 9:65])
    assert torch.equal(view.source, view.image)


def test_random_crops_reach_both_ends_and_stay_inside():
    resized = torch.zeros(3, 7, 5, dtype=torch.uint8)
    offsets = {
        make_view(resized, (7, 5), (5, 5), (5, 5), augmentation=Augmentation(), generator=rng).geometry.offset
        for rng in map(np.random.default_rng, range(23))
    }
    assert offsets == {(0.0, 0.0), (0.0, 1.0), (0.0, 2.0)}


def test_nothing_is_mirrored_or_coloured_unless_asked():
    resized = painted(18, 10, 26, 18)
    for seed in range(7):
        view = view_of(resized, seed, flip=False)
        assert not view.geometry.flip
        assert set(view.source.unique().tolist()) <= set(resized.unique().tolist())


def test_an_augmentation_needs_a_generator():
    with pytest.raises(AssertionError, match="generator"):
        make_view(painted(0, 0, 9, 9), ORIGINAL, CROP, INPUT, augmentation=Augmentation())


def test_a_crop_larger_than_the_photograph_is_our_own_mistake():
    with pytest.raises(AssertionError, match="smaller than the crop"):
        make_view(torch.zeros(3, 31, 31, dtype=torch.uint8), (31, 31), (37, 23), (37, 23))


@given(size=st.tuples(st.integers(1, 997), st.integers(1, 997)), resize=st.integers(1, 61))
def test_the_shorter_side_is_resized_as_torchvision_does(size, resize):
    if max(size) <= 100 * min(size):
        expected = F.resize(torch.zeros(1, *size, dtype=torch.uint8), [resize]).shape[1:]
        assert resized_size(size, resize) == tuple(expected)


def test_an_exact_size_is_taken_as_it_is():
    assert resized_size((31, 47), (61, 53)) == (61, 53)


@pytest.mark.parametrize("size", [(17, 29), (61, 53), (31, 47)])
def test_resize_gives_the_size_asked_for(size):
    resized = resize_photograph(Image.new("RGB", (47, 31), (10, 20, 30)), size)
    assert resized.shape == (3, *size)
    assert resized.flatten(1).float().mean(dim=1).tolist() == [10, 20, 30]


@pytest.mark.parametrize("color_jitter", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_views_do_not_depend_on_the_layout_in_memory(seed, color_jitter):
    planes = torch.from_numpy(np.random.default_rng(7).integers(0, 256, (3, 61, 83), dtype=np.uint8))
    pixels = planes.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    before = pixels.clone()
    one, other = (view_of(layout, seed, flip=True, color_jitter=color_jitter) for layout in (planes, pixels))
    assert torch.equal(one.image, other.image)
    assert torch.equal(one.source, other.source)
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


def test_normalize_is_as_worked_by_hand():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3).repeat(2, 3, 1, 1)
    normalized = normalize(images, (0.5, 0.2, 0.0), (0.25, 0.2, 1.0))
    assert normalized.dtype == torch.float32
    assert images.dtype == torch.uint8
    expected = torch.tensor([[-2, -1.2, 2], [-1, 0, 4], [0, 0.2, 1]])
    torch.testing.assert_close(normalized[:, :, 0], expected.expand(2, 3, 3), atol=1e-6, rtol=0)

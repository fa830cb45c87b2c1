"""However a file is decoded, size, shape and positions are those of the whole image."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as F

from ramstrans.data.loading.transforms import make_view
from ramstrans.data.preprocessing import Preprocessing, Reading, limited_size, resized_size
from ramstrans.data.reading import decode as module
from ramstrans.data.reading.decode import decode_reduced
from ramstrans.data.reading.resize import read_resized, resize_in_memory
from ramstrans.errors import UnreadableImageError
from tests.data.builders import decode_image
from tests.data.reading.photos import HEIGHT, ORIENTATION, WIDTH, assert_close, pixels


def draw(path, width, height, orientation=1, **options):
    """Save smooth noise."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    noise = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    image.save(path, exif=exif, **options)
    return path


@pytest.fixture
def decoded(monkeypatch):
    """Sizes `(height, width)` of all that this test decodes; threads of earlier ones may still be reading."""
    sizes, decode, own = [], module.decode_reduced, threading.get_ident()

    def noted(*args, **options):
        result = decode(*args, **options)
        if threading.get_ident() == own:
            sizes.append(result.image.size[::-1])
        return result

    monkeypatch.setattr(module, "decode_reduced", noted)
    return sizes


@pytest.mark.parametrize(
    ("size", "resize", "halvings"),
    [
        ((400, 300), 18, 3),  # 300 is 8 times 37
        ((400, 300), 19, 2),
        ((400, 300), 37, 2),
        ((400, 300), 38, 1),
        ((400, 300), 75, 1),
        ((400, 300), 76, 0),
        ((400, 300), 500, 0),
        ((400, 300), (75, 100), 1),
        ((400, 300), (75, 101), 0),
        ((400, 300), (76, 100), 0),
        ((400, 300), (18, 25), 3),
        ((400, 300), (18, 26), 2),
    ],
)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_twice_the_target_is_decoded_at_least(tmp_path, decoded, size, resize, halvings, orientation):
    in_file = size[::-1] if orientation == 6 else size
    resized = read_resized(draw(tmp_path / "a.jpg", *in_file, orientation), Reading(resize))
    assert resized.original_size == size[::-1]
    assert decoded == [tuple(-(-side // 2**halvings) for side in size[::-1])]
    assert resized.pixels.shape[1:] == ((resize, resize * 400 // 300) if isinstance(resize, int) else resize)


@given(
    size=st.tuples(st.integers(97, 401), st.integers(97, 401)),
    resize=st.integers(5, 60) | st.tuples(st.integers(5, 60), st.integers(5, 60)),
    orientation=st.integers(1, 8),
)
def test_a_file_gives_what_its_whole_image_gives(tmp_path_factory, size, resize, orientation):
    path = draw(tmp_path_factory.getbasetemp() / "whole.jpg", *size, orientation, quality=95)
    resized, whole = (
        read_resized(path, Reading(resize)),
        resize_in_memory(decode_image(path), Reading(resize)),
    )
    assert resized.original_size == whole.original_size
    assert resized.pixels.shape == whole.pixels.shape
    assert resized.pixels.dtype == torch.uint8
    difference = (resized.pixels.float() - whole.pixels.float()).abs().mean()
    assert difference < 20  # noise moved by half a pixel at an edge; mirrored or turned it differs by 85


@pytest.mark.parametrize(("name", "resize"), [("a.jpg", 53), ("a.jpg", (31, 101)), ("a.png", 17)])
def test_what_is_not_reduced_is_the_same_to_the_bit(tmp_path, name, resize):
    path = draw(tmp_path / name, 211, 199, 6)
    resized, whole = (
        read_resized(path, Reading(resize)),
        resize_in_memory(decode_image(path), Reading(resize)),
    )
    assert torch.equal(resized.pixels, whole.pixels)
    assert resized.original_size == whole.original_size == (211, 199)


@pytest.mark.parametrize("turned", [False, True])
def test_positions_are_those_of_the_original(tmp_path, turned):
    pixels = np.zeros((600, 801, 3), np.uint8)
    pixels[200:248, 640:688] = 255  # centred on (664, 224)
    image, exif = Image.fromarray(pixels), Image.Exif()
    if turned:
        image, exif[ORIENTATION] = image.transpose(Image.Transpose.ROTATE_90), 6
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    resized = read_resized(tmp_path / "a.jpg", Reading(73))
    assert resized.original_size == (600, 801)
    view = make_view(*resized, Preprocessing((73, 97), (71, 97)), (71, 97))
    weight = view.image[0].double() * (view.image[0] > 20)
    y, x = (torch.arange(side).double() + 0.5 for side in (71, 97))
    x, y = float((weight.sum(0) * x).sum() / weight.sum()), float((weight.sum(1) * y).sum() / weight.sum())
    assert view.geometry.to_original(np.array([x, y, x, y]))[:2] == pytest.approx([664, 224], abs=4)


def test_channels_are_last_in_memory(tmp_path):
    path = draw(tmp_path / "a.jpg", 61, 47)
    for resize in (23, (47, 61), (101, 97)):
        for image in (
            read_resized(path, Reading(resize)),
            resize_in_memory(decode_image(path), Reading(resize)),
        ):
            assert image.pixels.permute(1, 2, 0).is_contiguous()


def test_too_many_pixels_are_refused_however_small_the_target(tmp_path):
    path = draw(tmp_path / "a.jpg", 400, 300)
    with pytest.raises(UnreadableImageError, match="max_pixels"):
        read_resized(path, Reading(7), max_pixels=400 * 300 - 1)
    read_resized(path, Reading(7), max_pixels=400 * 300)


@given(size=st.tuples(st.integers(1, 997), st.integers(1, 997)), resize=st.integers(1, 61))
def test_the_shorter_side_is_resized_as_torchvision_does(size, resize):
    if max(size) <= 100 * min(size):
        expected = F.resize(torch.zeros(1, *size, dtype=torch.uint8), [resize]).shape[1:]
        assert resized_size(size, resize) == tuple(expected)


def test_an_exact_size_is_taken_as_it_is():
    assert resized_size((31, 47), (61, 53)) == (61, 53)


@pytest.mark.parametrize("size", [(17, 29), (61, 53), (31, 47)])
def test_resize_gives_the_size_asked_for(size):
    resized = resize_in_memory(Image.new("RGB", (47, 31), (10, 20, 30)), Reading(size)).pixels
    assert resized.shape == (3, *size)
    assert resized.flatten(1).float().mean(dim=1).tolist() == [10, 20, 30]


@given(size=st.tuples(st.integers(1, 9999), st.integers(1, 9999)), limit=st.integers(1, 10**7))
def test_a_limited_image_has_as_many_pixels_as_it_may(size, limit):
    height, width = limited_size(size, limit)
    if size[0] * size[1] <= limit:
        assert (height, width) == size
    elif min(height, width) > 1:
        assert height * width <= limit < (height + 1) * (width + 1)
        assert height / size[0] == pytest.approx(width / size[1], rel=1 / min(height, width))


@pytest.mark.parametrize(
    ("zoom_pixels", "size", "halvings"),
    [
        (120_000, (300, 400), 0),
        (10**9, (300, 400), 0),
        (30_000, (150, 200), 0),  # to be resized from twice that each way
        (7500, (75, 100), 1),
        (7600, (75, 100), 0),
        (1200, (30, 40), 2),
    ],
)
def test_own_resolution_up_to_a_limit(tmp_path, decoded, zoom_pixels, size, halvings):
    path = draw(tmp_path / "a.jpg", 400, 300)
    resized = read_resized(path, Reading(7, "squash", zoom_pixels))
    assert resized.original_size == (300, 400)
    assert resized.pixels.shape == (3, *size)
    assert decoded == [(300 // 2**halvings, 400 // 2**halvings)]
    if size == (300, 400):
        assert torch.equal(resized.pixels, F.pil_to_tensor(decode_image(path)))


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_limit_counts_pixels_of_the_upright_image(tmp_path, orientation):
    path = draw(tmp_path / "a.jpg", 400, 100, orientation)
    size = read_resized(path, Reading(7, zoom_pixels=10_000)).pixels.shape[1:]
    assert tuple(size) == ((50, 200) if orientation == 1 else (200, 50))


def halvings(original, at_least):
    """How often both sides can be halved, three times at most, above what is asked for; (height, width)."""
    fits = (
        n for n in (3, 2, 1) if all(o // least >= 2**n for o, least in zip(original, at_least, strict=True))
    )
    return next(fits, 0)


SIDES = st.integers(1, 97)


@given(
    size=st.tuples(SIDES, SIDES),
    at_least=st.tuples(SIDES, SIDES),
    orientation=st.integers(1, 8),
)
def test_a_reduced_jpeg_keeps_both_sides(tmp_path_factory, size, at_least, orientation):
    path, exif = tmp_path_factory.getbasetemp() / "reduced.jpg", Image.Exif()
    exif[ORIENTATION] = orientation
    Image.new("L", size, 131).save(path, exif=exif)
    reduced = decode_reduced(path, at_least)
    original = size if orientation >= 5 else size[::-1]
    assert reduced.original_size == original
    times = halvings(original, at_least)
    assert reduced.image.size[::-1] == tuple(-(-side // 2**times) for side in original)
    assert np.abs(pixels(reduced.image) - 131).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_shows_the_same(tmp_path, photo, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    photo.resize((8 * WIDTH, 8 * HEIGHT), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", exif=exif)
    reduced = decode_reduced(tmp_path / "a.jpg", (HEIGHT, HEIGHT))
    whole = decode_image(tmp_path / "a.jpg")
    assert reduced.original_size == whole.size[::-1]
    assert sorted(reduced.image.size) == [HEIGHT, WIDTH]
    assert_close(reduced.image, whole.resize(reduced.image.size, Image.Resampling.BOX), 6)


def test_a_jpeg_of_several_images_is_reduced_too(tmp_path, photo):
    photo.save(tmp_path / "a.mpo", save_all=True, append_images=[photo.rotate(180)], quality=95)
    reduced = decode_reduced(tmp_path / "a.mpo", (23, 23))
    assert reduced.image.size == (31, 24)
    assert_close(reduced.image, photo.resize((31, 24), Image.Resampling.BOX), 12)


def test_other_formats_are_not_reduced(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    reduced = decode_reduced(tmp_path / "a.png", (5, 5))
    assert reduced.original_size == (HEIGHT, WIDTH)
    assert_close(reduced.image, photo, 0)


def test_the_limit_of_pixels_is_of_the_original(tmp_path, photo):
    photo.save(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImageError, match="over the limit"):
        decode_reduced(tmp_path / "a.jpg", (5, 5), max_pixels=WIDTH * HEIGHT - 1)
    assert decode_reduced(tmp_path / "a.jpg", (5, 5), max_pixels=WIDTH * HEIGHT).image.size == (8, 6)

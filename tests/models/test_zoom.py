import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ramstrans.models.zoom import zoom, zoom_by_products, zoom_each
from tests.models.builders import noise
from tests.models.oracles import zoom_each_twin, zoom_twin

SIZES = [1, 2, 3, 7, 13, 23, 41]


@st.composite
def whole_boxes(draw, height, width):
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return x0, y0, draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))


@st.composite
def crops(draw):
    """The size of images, one box on whole pixels for each, the size of the result, and a seed."""
    height, width = draw(st.sampled_from(SIZES)), draw(st.sampled_from(SIZES))
    boxes = draw(st.lists(whole_boxes(height, width), min_size=1, max_size=3))
    size = draw(st.sampled_from(SIZES)), draw(st.sampled_from(SIZES))
    return (height, width), boxes, size, draw(st.integers(0, 999))


@settings(max_examples=80)
@given(crops())
def test_whole_pixels_equal_cut_and_interpolate(drawn):
    image_size, boxes, size, seed = drawn
    images = noise(len(boxes), 3, *image_size, seed=seed)
    zoomed = zoom(images, torch.tensor(boxes, dtype=torch.float32), size)
    assert zoomed.shape == (len(boxes), 3, *size)
    for image, (x0, y0, x1, y1), result in zip(images, boxes, zoomed, strict=True):
        crop = image[None, :, y0:y1, x0:x1]
        expected = F.interpolate(crop, size, mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(result, expected, rtol=0, atol=3e-5)


@settings(max_examples=100)
@given(st.data())
def test_fractional_boxes_equal_a_slow_sampler(data):
    height, width, size = 23, 31, (7, 13)
    sides = {"allow_nan": False, "width": 32}
    x0, y0 = data.draw(st.floats(0, width - 1, **sides)), data.draw(st.floats(0, height - 1, **sides))
    x1, y1 = data.draw(st.floats(x0 + 1, width)), data.draw(st.floats(y0 + 1, height))
    images = noise(1, 2, height, width)
    expected = zoom_twin(images[0].numpy(), np.float32([x0, y0, x1, y1]), size)
    result = zoom(images, torch.tensor([[x0, y0, x1, y1]]), size)[0]
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)


@settings(max_examples=100)
@given(st.data())
def test_products_of_matrices_are_the_same_zoom(data):
    height, width = data.draw(st.sampled_from([(23, 31), (1, 7), (13, 1)]))
    size = data.draw(st.sampled_from([(7, 13), (1, 1), (41, 23)]))
    boxes = []
    for _ in range(2):
        x0, y0 = (data.draw(st.floats(0, side - 1, width=32)) for side in (width, height))
        boxes.append([x0, y0, data.draw(st.floats(x0 + 1, width)), data.draw(st.floats(y0 + 1, height))])
    images = noise(2, 3, height, width)
    expected = zoom(images, torch.tensor(boxes), size)
    found = zoom_by_products(images, torch.tensor(boxes), size)
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-5)


@pytest.mark.parametrize("size", [(41, 41), (448, 448), (23, 61)])
def test_whole_image_is_the_image(size):
    images = noise(2, 3, *size)
    whole = torch.tensor([[0.0, 0.0, size[1], size[0]]]).expand(2, -1)
    torch.testing.assert_close(zoom(images, whole, size), images, rtol=0, atol=1e-3)


def test_a_row_by_hand():
    image = torch.tensor([9.0, 1.0, 3.0, 9.0]).view(1, 1, 1, 4)
    result = zoom(image, torch.tensor([[1.0, 0.0, 3.0, 1.0]]), (1, 4))
    assert result.flatten().tolist() == pytest.approx([1, 1.5, 2.5, 3])  # never the 9 beside the box


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_kept_and_places_are_not_rounded_to_it(dtype):
    ramp = torch.arange(256.0).expand(1, 1, 256, 256).to(dtype)  # whole numbers every dtype can hold
    result = zoom(ramp, torch.tensor([[128.0, 0.0, 256.0, 128.0]]), (128, 128))
    assert result.dtype == dtype
    assert torch.equal(result[0, 0, 0], torch.arange(128, 256).to(dtype))


@pytest.mark.parametrize("function", [zoom, zoom_by_products])
def test_whole_numbers_are_rounded_to_the_nearest(function):
    image = torch.tensor([9, 1, 4, 9], dtype=torch.uint8).view(1, 1, 1, 4)
    result = function(image, torch.tensor([[1.0, 0.0, 3.0, 1.0]]), (1, 4))
    assert result.dtype == torch.uint8
    assert result.flatten().tolist() == [1, 2, 3, 4]  # of 1, 1.75, 3.25, 4


def test_autocast_changes_nothing():
    images, boxes = noise(1, 3, 23, 31), torch.tensor([[3.3, 2.0, 17.0, 20.5]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = zoom(images, boxes, (13, 11))
    assert torch.equal(cast, zoom(images, boxes, (13, 11)))


def test_boxes_of_any_dtype_and_stride():
    images, boxes = noise(2, 3, 23, 31), torch.tensor([[3, 2, 17, 20], [0, 0, 31, 23]])
    assert torch.equal(
        zoom(images, boxes, (13, 11)), zoom(images, boxes.mT.contiguous().mT.double(), (13, 11))
    )


def test_no_gradient_flows():
    images, boxes = noise(1, 3, 7, 7).requires_grad_(), torch.tensor([[1.0, 1.0, 5.0, 5.0]]).requires_grad_()
    assert not zoom(images, boxes, (3, 3)).requires_grad


def pixels(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


def shares_of(box, height, width):
    return [edge / side for edge, side in zip(box, (width, height) * 2, strict=True)]


@settings(max_examples=60)
@given(crops())
def test_each_image_is_the_slow_twins_whatever_its_size(drawn):
    (height, width), boxes, size, seed = drawn
    images = [pixels(3, height + i, width + 2 * i, seed=seed + i) for i in range(len(boxes))]
    shares = [shares_of(box, *image.shape[1:]) for image, box in zip(images, boxes, strict=True)]
    result = zoom_each(images, torch.tensor(shares), size)
    assert (result.shape, result.dtype) == ((len(boxes), 3, *size), torch.uint8)
    for image, box, crop in zip(images, boxes, result, strict=True):
        np.testing.assert_allclose(crop, zoom_each_twin(image, box, size), rtol=0, atol=1.1)


@settings(max_examples=60)
@given(st.data())
def test_fractional_boxes_of_each_are_the_slow_twins(data):
    height, width, size = 23, 17, (13, 11)
    quarters = [sorted(data.draw(st.lists(st.integers(0, 4 * n), min_size=2, max_size=2, unique=True)))
                for n in (width, height)]  # fmt: skip
    (x0, x1), (y0, y1) = ((start / 4, stop / 4) for start, stop in quarters)
    image = pixels(3, height, width)
    box = torch.tensor([shares_of((x0, y0, x1, y1), height, width)])
    expected = zoom_each_twin(image, (x0, y0, x1, y1), size)
    np.testing.assert_allclose(zoom_each([image], box, size)[0], expected, rtol=0, atol=1.1)


@pytest.mark.parametrize("length", [1, 2, 5000])
def test_boxes_far_smaller_than_a_pixel_give_a_colour(length):
    image = torch.full((3, length, length), 77, dtype=torch.uint8)
    edges = (0.0, 0.2, 0.5, 1 - 1e-6)
    boxes = torch.tensor([[x, y, x + 1e-6, y + 1e-6] for x in edges for y in edges])
    assert (zoom_each([image] * len(boxes), boxes, (3, 2)) == 77).all()


def test_all_pixels_of_a_box_that_is_reduced_count():
    stripes = (torch.arange(64) % 2 * 255).to(torch.uint8).expand(3, 8, 64)
    shares = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    grey = zoom_each([stripes], shares, (2, 7))[0]
    assert (grey.int() - 127).abs().max() <= 15
    sampled = zoom(stripes[None].float(), torch.tensor([[0.0, 0.0, 64.0, 8.0]]), (2, 7))
    assert (sampled - 127).abs().max() > 40  # without antialiasing


def test_channels_last_slices_are_cut_alike():
    image = pixels(19, 23, 3).permute(2, 0, 1)[:, 2:17, 3:20]
    box = torch.tensor([[0.21, 0.1, 0.9, 0.77]])
    assert torch.equal(zoom_each([image], box, (7, 5)), zoom_each([image.contiguous()], box, (7, 5)))

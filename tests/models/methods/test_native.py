"""Regions cut from photographs of any sizes, at their own resolution."""

import numpy as np
import pytest
import torch
from PIL import Image

from ramstrans.data.loading.dataset import ImageDataset, collate
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.records import Record
from ramstrans.models.methods.boxes import scaled
from ramstrans.models.methods.early_exit import exit_early
from ramstrans.models.zoom import zoom_each
from tests.models.builders import SIZE, noise, tiny_model

SIZES = [(53, 61), (97, 41), (47, 79), (211, 307), (5, 7)]


def photographs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator) for size in SIZES]


@pytest.fixture
def model():
    return tiny_model(num_scales=3, zoom_source="native", region_size=(32, 64))


@torch.no_grad()
def test_each_region_is_cut_from_its_own_photograph(model):
    images, high_res = noise(5, 3, *SIZE), photographs()
    output = model(images, high_res)
    for scale in (0, 1):
        shares = scaled(output.scales[scale].boxes, 1 / SIZE[1], 1 / SIZE[0])
        crops = model.encoder.normalize(zoom_each(high_res, shares, (32, 64)))
        logits = model.encoder.forward_head(model.encoder(crops, scale + 1).pooled)
        torch.testing.assert_close(logits, output.scales[scale + 1].logits, rtol=1e-4, atol=1e-4)
    assert len(set(output.scales[0].boxes.unbind())) == 5


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(model):
    images, high_res = noise(5, 3, *SIZE), photographs()
    together = model(images, high_res).fused
    for index in range(5):
        alone = model(images[index : index + 1], high_res[index : index + 1]).fused
        torch.testing.assert_close(alone[0], together[index], rtol=1e-4, atol=1e-5)


def test_images_that_leave_early_take_their_photographs_along(model):
    images, high_res = noise(5, 3, *SIZE), photographs()
    with torch.no_grad():
        output = model(images, high_res)
    confidence = output.scales[0].logits.softmax(dim=1).amax(dim=1).sort().values[2].item()
    early = exit_early(model, images, high_res, confidence=confidence)
    assert sorted(early.num_scales_used.tolist())[:3] == [1, 1, 1]
    indices = early.indices[1]
    assert 1 <= len(indices) <= 2
    torch.testing.assert_close(early.scales[1].logits, output.scales[1].logits[indices], rtol=1e-4, atol=1e-4)


def test_photographs_are_not_normalised_before_they_are_cut(model):
    high_res = photographs()
    images, same = model.normalize(torch.zeros(5, 3, *SIZE, dtype=torch.uint8), high_res)
    assert same is high_res
    assert images.dtype == torch.float32


BIRD = np.array([1300.0, 1700.0, 1620.0, 1940.0])
STRIPES = np.where(np.arange(320) // 5 % 2, 40, 200)


@pytest.fixture(scope="module")
def small_bird(tmp_path_factory):
    """12 megapixels of grey with a "bird" of 320 x 240 pixels, whose plumage has stripes 5 pixels wide."""
    pixels = np.full((3000, 4000, 3), 120, np.uint8)
    pixels[1700:1940, 1300:1620] = STRIPES[:, None]
    path = tmp_path_factory.mktemp("large") / "bird.jpg"
    Image.fromarray(pixels).save(path, quality=92)
    return path


def second_look(path, preprocessing, zoom_source):
    """(3, 224, 224) pixels of what the second scale sees if the region is exactly the bird."""
    dataset = ImageDataset([Record(path, 0, "test")], preprocessing, (224, 224))
    batch = collate([dataset[0, 0]], with_high_res=True)
    (geometry,) = batch.geometries
    box = BIRD * np.tile(geometry.scale, 2) - np.tile(geometry.offset, 2)
    model = tiny_model(image_size=224, zoom_source=zoom_source)
    images, high_res = model.normalize(batch.images, batch.high_res)
    crop = model.crop_regions(model.zoom_image(images, high_res), torch.from_numpy(np.float32(box))[None], 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.encoder.mean, model.encoder.std))
    return (crop[0] * std + mean) * 255


def contrast(crop):
    """Standard deviation along the rows, away from the edges; that of the stripes themselves is 80."""
    return crop[:, 20:-20, 20:-20].std(dim=2).mean().item()


FIXED = [("crop", 448), ("crop", 512), ("squash", (448, 448)), ("squash", (512, 512)), ("pad", (448, 448))]


def test_the_second_look_is_sharper_than_any_fixed_crop(small_bird):
    for limit in (12_000_000, 4_000_000):
        native = second_look(small_bird, Preprocessing(448, (448, 448), zoom_pixels=limit), "native")
        assert contrast(native) > 50, limit
    for fit, resize in FIXED:
        assert contrast(second_look(small_bird, Preprocessing(resize, (448, 448), fit), "full")) < 20, fit
    few = second_look(small_bird, Preprocessing(448, (448, 448), zoom_pixels=448 * 597), "native")
    assert contrast(few) < 20  # the limit is one


@pytest.mark.parametrize(("fit", "resize"), FIXED)
def test_the_region_lies_where_it_should(small_bird, fit, resize):
    """The bird fills the crop: its stripes lie where they should."""
    preprocessing = Preprocessing(resize, (448, 448), fit, zoom_pixels=12_000_000)
    crop = second_look(small_bird, preprocessing, "native").mean(dim=(0, 1))
    expected = STRIPES[((np.arange(224) + 0.5) * 320 / 224).astype(int)]
    assert np.corrcoef(crop.numpy(), expected)[0, 1] > 0.85

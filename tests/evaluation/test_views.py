import numpy as np
import pytest
import torch

from ramstrans.data.datasets.cub import read_cub
from ramstrans.data.loading.dataset import ImageDataset, collate
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.evaluation.views import crop_images, to_image


@pytest.mark.parametrize("with_high_res", [False, True])
def test_the_crop_is_cut_from_the_sharpest_there_is(with_high_res, birds):
    """A region of exactly the next input's size, at whole pixels, keeps its pixels."""
    crop = (36, 48) if with_high_res else (24, 32)
    dataset = ImageDataset(read_cub(birds).of_split("test"), Preprocessing(48, crop), (24, 32))
    batch = collate([dataset[0, 0], dataset[0, 3]], with_high_res=with_high_res)
    high_res = batch.high_res if with_high_res else batch.images
    share = torch.tensor([32 / high_res.shape[3], 24 / high_res.shape[2]] * 2)
    boxes = torch.tensor([[0.0, 0.0, 32.0, 24.0]]) * share
    crops = crop_images(batch, boxes.repeat(2, 1), (24, 32))
    for crop, pixels in zip(crops, high_res, strict=True):
        expected = pixels[:, :24, :32].permute(1, 2, 0).numpy()
        assert np.abs(np.asarray(crop).astype(int) - expected).max() <= 1


def test_pixels_are_rounded_and_clipped():
    pixels = torch.tensor([-0.4, 1.6, 255.3]).reshape(3, 1, 1).repeat(1, 2, 5)
    image = to_image(pixels)
    assert image.size == (5, 2)
    assert image.getpixel((4, 1)) == (0, 2, 255)

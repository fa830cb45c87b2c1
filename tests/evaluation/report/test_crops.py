import numpy as np
import pytest
import torch

from ramstrans.data.datasets.cub import read_cub
from ramstrans.data.loading.dataset import ImageDataset, collate
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.evaluation.report.crops import crop_picture, picture_of


@pytest.mark.parametrize("with_high_res", [False, True])
def test_the_crop_is_cut_from_the_sharpest_there_is(with_high_res, birds):
    """A region of exactly the next input's size, at whole pixels, is the source's own pixels."""
    crop = (36, 48) if with_high_res else (24, 32)
    dataset = ImageDataset(read_cub(birds).of_split("test"), Preprocessing(48, crop), (24, 32))
    batch = collate([dataset[0, 0], dataset[0, 3]], with_high_res=with_high_res)
    high_res = batch.high_res if with_high_res else batch.images
    share = torch.tensor([32 / high_res.shape[3], 24 / high_res.shape[2]] * 2)
    boxes = torch.tensor([[0.0, 0.0, 32.0, 24.0]]) * share
    picture = np.asarray(crop_picture(batch, boxes.repeat(2, 1), (24, 32)))
    expected = high_res[0, :, :24, :32].permute(1, 2, 0).numpy()
    assert np.abs(picture.astype(int) - expected).max() <= 1


def test_a_picture_is_rounded_and_kept_in_range():
    pixels = torch.tensor([-0.4, 1.6, 255.3]).reshape(3, 1, 1).repeat(1, 2, 5)
    picture = picture_of(pixels)
    assert picture.size == (5, 2)
    assert picture.getpixel((4, 1)) == (0, 2, 255)

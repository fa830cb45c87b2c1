import numpy as np
import pytest
import torch

from ramstrans.data.layouts.cub import read_cub
from ramstrans.data.loading import PhotographDataset, collate
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.evaluation.looks import crop_picture, picture_of


@pytest.mark.parametrize("with_source", [False, True])
def test_the_crop_is_cut_from_the_sharpest_there_is(with_source, birds):
    """A region of exactly the next input's size, at whole pixels, is the source's own pixels."""
    crop = (36, 48) if with_source else (24, 32)
    dataset = PhotographDataset(read_cub(birds).of_split("test"), Preprocessing(48, crop), (24, 32))
    batch = collate([dataset[0, 0], dataset[0, 3]], with_source=with_source)
    source = batch.source if with_source else batch.images
    share = torch.tensor([32 / source.shape[3], 24 / source.shape[2]] * 2)
    boxes = torch.tensor([[0.0, 0.0, 32.0, 24.0]]) * share
    picture = np.asarray(crop_picture(batch, boxes.repeat(2, 1), (24, 32)))
    expected = source[0, :, :24, :32].permute(1, 2, 0).numpy()
    assert np.abs(picture.astype(int) - expected).max() <= 1


def test_a_picture_is_rounded_and_kept_in_range():
    pixels = torch.tensor([-0.4, 1.6, 255.3]).reshape(3, 1, 1).repeat(1, 2, 5)
    picture = picture_of(pixels)
    assert picture.size == (5, 2)
    assert picture.getpixel((4, 1)) == (0, 2, 255)

"""Views at the photograph's own resolution show what views of one size show, with more detail."""

import numpy as np
import pytest
import torch

from ramstrans.data.loading.dataset import ImageDataset, collate
from ramstrans.data.loading.loader import build_loader
from ramstrans.data.loading.transforms import Augmentation, make_view
from ramstrans.data.preprocessing import Preprocessing, Reading
from ramstrans.data.reading.cache import DiskCache, MemoryCache
from ramstrans.data.reading.resize import read_resized
from tests.data.loading.loaders import epochs_of, same_example

SEEN = [("crop", 31), ("squash", (41, 37)), ("pad", (37, 41))]
MANY = 10**6


def native(resize=31, fit="crop", zoom_pixels=MANY):
    return Preprocessing(resize, (29, 23), fit, zoom_pixels)


def dataset_of(records, preprocessing, **options):
    options = {"augmentation": Augmentation(color_jitter=0.3), "seed": 3} | options
    return ImageDataset(records, preprocessing, (17, 19), **options)


def same_native(first, second):
    """Whether two batches are the same."""
    assert len(first.high_res) == len(second.high_res)
    return (
        torch.equal(first.images, second.images)
        and all(map(torch.equal, first.high_res, second.high_res))
        and first.geometries == second.geometries
    )


@pytest.mark.parametrize(("fit", "resize"), SEEN)
@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_a_view_shows_the_same_part_as_at_a_fixed_size(records, fit, resize, augmentation):
    """To a pixel of the resized image, since views begin at whole pixels of either."""
    fixed, own = Preprocessing(resize, (29, 23), fit), native(resize, fit)
    whole = np.array([0.0, 0.0, 19.0, 17.0])
    for index in range(5):
        boxes, flips = [], []
        for preprocessing in (fixed, own):
            example = dataset_of(records, preprocessing, augmentation=augmentation)[0, index]
            boxes.append(example.view.geometry.to_original(whole))
            flips.append(example.view.geometry.flip)
            assert example.view.is_native == (preprocessing is own)
        height, width = example.original_size
        assert flips[0] == flips[1]
        np.testing.assert_allclose(boxes[0], boxes[1], atol=max(height, width) / 29)


def test_a_view_keeps_the_pixels_of_the_photograph(records):
    path = records[3].path
    pixels, size = read_resized(path, Reading(31, "crop", MANY))
    assert tuple(pixels.shape[1:]) == size == (37, 61)
    view = make_view(pixels, size, native(), (17, 19))
    # resized to 31 x 51 it would be cut at rows 1 to 30 and columns 14 to 37
    assert torch.equal(view.high_res, pixels[:, 1:36, 17:44])
    left, top, right, bottom = view.geometry.to_original(np.array([0.0, 0.0, 19.0, 17.0]))
    assert (left, top, right, bottom) == pytest.approx((17, 1, 44, 36))


def test_a_view_has_no_more_pixels_than_the_limit_and_none_that_are_made_up(records):
    for limit in (1, 7, 100, 1000, MANY):
        for index in range(5):
            example = dataset_of(records, native(zoom_pixels=limit))[0, index]
            height, width = example.view.high_res.shape[1:]
            assert height * width <= limit
            assert height <= example.original_size[0]
            assert width <= example.original_size[1]
            assert example.view.image.shape == (3, 17, 19)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_cache_changes_nothing(records, tmp_path, kind):
    cache = MemoryCache() if kind == "memory" else DiskCache(tmp_path)
    plain = dataset_of(records, native(zoom_pixels=800))
    dataset_of(records, Preprocessing(31, (29, 23)), cache=cache)[0, 1]  # an entry of another size
    cached = dataset_of(records, native(zoom_pixels=800), cache=cache)
    for epoch in range(2):
        assert all(same_example(cached[epoch, index], plain[epoch, index]) for index in range(5))


def test_a_batch_keeps_the_sizes_of_its_images(records):
    dataset = dataset_of(records, native())
    examples = [dataset[0, index] for index in range(5)]
    batch = collate(examples, with_high_res=True)
    assert batch.images.shape == (5, 3, 17, 19)
    for image, example in zip(batch.high_res, examples, strict=True):
        assert torch.equal(image, example.view.high_res)
    # one block of memory, so that a loader's process sends one file
    assert len({image.untyped_storage().data_ptr() for image in batch.high_res}) == 1
    assert collate(examples, with_high_res=False).high_res is None


def test_batches_do_not_depend_on_the_number_of_processes(records):
    def batches(num_workers):
        dataset = dataset_of(records, native())
        options = {"shuffle": True, "with_high_res": True, "seed": 3, "num_workers": num_workers}
        return [batch for epoch in epochs_of(build_loader(dataset, 2, **options)) for batch in epoch]

    assert all(map(same_native, batches(0), batches(2)))


CHANGES = [{"color_jitter": 0.4}, {"rand_augment": 2}, {"random_erasing": 1.0}]


@pytest.mark.parametrize("changes", CHANGES)
def test_augmentations_change_the_photographs_own_pixels(records, changes):
    plain = dataset_of(records, native(), augmentation=Augmentation())
    changed = dataset_of(records, native(), augmentation=Augmentation(**changes))
    differ = 0
    for index in range(5):
        before, after = plain[0, index].view, changed[0, index].view
        assert before.high_res.shape == after.high_res.shape
        differ += not torch.equal(before.high_res, after.high_res)
    assert differ >= 4

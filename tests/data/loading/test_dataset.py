"""A view depends on seed, epoch and index alone, cached or not."""

import numpy as np
import pytest
import torch

from ramstrans.data.loading.dataset import ImageDataset, collate, to_example
from ramstrans.data.loading.transforms import Geometry
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.reading import cache as caching
from ramstrans.data.reading.cache import DiskCache, MemoryCache
from ramstrans.data.reading.decode import read_resized
from ramstrans.errors import UnreadableImageError
from tests.data.loading.loaders import dataset_of, same_example


def test_an_item_is_a_pure_function_of_seed_epoch_and_index(records):
    first, again = dataset_of(records), dataset_of(records)
    forwards = [first[1, index] for index in range(5)]
    backwards = [again[1, index] for index in reversed(range(5))][::-1]
    assert all(map(same_example, forwards, backwards))
    assert not any(map(same_example, forwards, (first[2, index] for index in range(5))))
    other = dataset_of(records, seed=4)
    assert not any(map(same_example, forwards, (other[1, index] for index in range(5))))


def test_views_without_augmentation_are_the_same_in_every_epoch(records):
    dataset = dataset_of(records, augmentation=None)
    assert same_example(dataset[0, 3], dataset[7, 3])


@pytest.mark.parametrize("zoom_pixels", [None, 500])
@pytest.mark.parametrize(("fit", "resize"), [("crop", 31), ("squash", (41, 37)), ("pad", (37, 41))])
def test_without_augmentation_the_data_set_sees_what_a_prediction_sees(records, fit, resize, zoom_pixels):
    preprocessing = Preprocessing(resize, (29, 23), fit, zoom_pixels)
    dataset = ImageDataset(records, preprocessing, (17, 19))
    for index, record in enumerate(records):
        theirs = dataset[5, index].view
        ours = to_example(read_resized(record.path, preprocessing.reading), preprocessing, (17, 19)).view
        assert torch.equal(ours.image, theirs.image)
        assert torch.equal(ours.high_res, theirs.high_res)
        assert ours.geometry == theirs.geometry
        if fit != "crop":
            width, height = dataset[0, index].original_size[::-1]
            x0, y0, x1, y1 = theirs.geometry.to_original(np.array([0.0, 0.0, 19.0, 17.0]))
            assert max(x0, y0) <= 1e-9
            assert x1 >= width - 1e-9
            assert y1 >= height - 1e-9


def test_an_item_knows_where_it_comes_from(records):
    example = dataset_of(records)[0, 3]
    assert (example.label, example.record_index, example.original_size) == (0, 3, (37, 61))
    assert example.view.image.shape == (3, 17, 19)
    assert example.view.high_res.shape == (3, 29, 23)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_cache_changes_nothing_but_the_number_of_decodings(records, tmp_path, monkeypatch, kind):
    decoded, read = [], caching.read_resized

    def counted(path, *args, **options):
        decoded.append(path)
        return read(path, *args, **options)

    monkeypatch.setattr(caching, "read_resized", counted)
    cache = MemoryCache() if kind == "memory" else DiskCache(tmp_path)
    cached, plain = dataset_of(records, cache=cache), dataset_of(records)
    for epoch in range(3):
        assert all(same_example(cached[epoch, index], plain[epoch, index]) for index in range(5))
    assert decoded == [record.path for record in records]


def test_collate_stacks(records):
    dataset = dataset_of(records)
    batch = collate([dataset[0, 3], dataset[0, 0]], with_high_res=True)
    assert batch.images.shape == (2, 3, 17, 19)
    assert batch.high_res.shape == (2, 3, 29, 23)
    assert batch.images.dtype == batch.high_res.dtype == torch.uint8
    assert batch.labels.tolist() == [0, 0]
    assert batch.indices.tolist() == [3, 0]
    assert batch.original_sizes.tolist() == [[61, 37], [40, 48]]
    assert (batch.weight, batch.key) == ((2, 2), (0, 0, 0))
    assert batch.images.is_contiguous()
    assert batch.high_res.is_contiguous()
    for index, example in enumerate([dataset[0, 3], dataset[0, 0]]):
        assert torch.equal(batch.images[index], example.view.image)
        assert torch.equal(batch.high_res[index], example.view.high_res)
    assert collate([dataset[0, 3]], with_high_res=False).high_res is None


def test_an_image_over_the_limit_of_pixels_is_refused(records):
    with pytest.raises(UnreadableImageError, match="max_pixels"):
        dataset_of(records, max_pixels=61 * 37 - 1)[0, 3]


def test_boxes_follow_the_view():
    """An image of 40 x 20, resized to 20 x 10, of which the crop takes 10 x 10, enlarged to 20 x 20."""
    for flip, expected in ((False, [10, 4, 20, 16]), (True, [0, 4, 10, 16])):
        geometry = Geometry((1.0, 1.0), (10.0, 0.0), 20.0, flip)
        box = geometry.from_original(np.array([20.0, 4, 30, 16]))
        assert box.tolist() == expected
        assert geometry.to_original(box).tolist() == [20, 4, 30, 16]


def test_a_batch_has_the_boxes_of_its_images_in_pixels_of_the_views(records):
    records = [record._replace(box=(1.0, 2.0, 9.0, 12.0)) for record in records[:3]]
    records[1] = records[1]._replace(box=None)
    dataset = dataset_of(records)
    examples = [dataset[0, index] for index in range(3)]
    batch = collate(examples, with_high_res=False)
    assert batch.boxes[1].isnan().all()
    for row in (0, 2):
        back = batch.geometries[row].to_original(batch.boxes[row].numpy())
        np.testing.assert_allclose(back, [1, 2, 9, 12], atol=1e-4)
    assert collate(examples[1:2], with_high_res=False).boxes is None

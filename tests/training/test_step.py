"""How a process cuts its images of a step into parts."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.loading.loader import Batch, EpochBatches
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.training.config import TrainingConfig
from ramstrans.training.step import TrainStep

PREPROCESSING = Preprocessing(8, (8, 8))


def parts_of(own, whole, num_processes, gradient_accumulation_steps, *, high_res=False):
    """The parts of a batch of images 0, 1, ..., which their labels tell."""
    count = max(own, 1)  # a process without one gets the batch's first
    views = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
    batch = Batch(
        views, views if high_res else None, torch.arange(count), torch.arange(count), (), torch.ones(count, 2)
    )
    accelerator = SimpleNamespace(device=torch.device("cpu"), num_processes=num_processes)
    config = TrainingConfig(gradient_accumulation_steps=gradient_accumulation_steps)
    return TrainStep(None, None, None, None, config, accelerator)._parts(batch, PREPROCESSING, own, whole)


def test_a_process_with_fewer_images_than_parts_fills_in_with_its_first():
    """Of 5 images in two parts by 3 processes, the last one has a single image."""
    first, last = parts_of(2, 5, 3, 2), parts_of(1, 5, 3, 2)
    assert [(part.labels.tolist(), part.share) for part in first] == [([0], 0.2), ([1], 0.2)]
    assert [(part.labels.tolist(), part.share) for part in last] == [([0], 0.2), ([0], 0.0)]
    [part] = parts_of(0, 2, 3, 4)
    assert (part.labels.tolist(), part.share) == ([0], 0.0)


def test_a_source_is_cut_like_its_images():
    parts = parts_of(5, 5, 1, 2, high_res=True)
    assert [(len(part.images), len(part.high_res), part.share) for part in parts] == [
        (3, 3, 0.6),
        (2, 2, 0.4),
    ]
    assert parts_of(1, 1, 1, 1)[0].high_res is None


@given(
    length=st.integers(1, 23), num_processes=st.integers(1, 7), gradient_accumulation_steps=st.integers(1, 5)
)
def test_all_processes_have_as_many_parts_and_every_image_counts_once(
    length, num_processes, gradient_accumulation_steps
):
    batches = [
        EpochBatches(length, 9, shuffle=True, process=process, num_processes=num_processes)
        for process in range(num_processes)
    ]
    for number in range(batches[0].num_batches):
        cut = [parts_of(*each.counts(number), num_processes, gradient_accumulation_steps) for each in batches]
        assert len({len(parts) for parts in cut}) == 1
        assert sum(part.share for parts in cut for part in parts) == pytest.approx(1)
        assert all(len(part.labels) for parts in cut for part in parts)
        whole = batches[0].counts(number)[1]
        for parts, each in zip(cut, batches, strict=True):
            counted = [len(part.labels) for part in parts if part.share]
            assert sum(counted) == each.counts(number)[0]
            assert all(part.share == pytest.approx(len(part.labels) / whole) for part in parts if part.share)

"""How a process splits its images of a step into micro-batches."""

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


def split(own, whole, num_processes, steps, *, high_res=False):
    """The micro-batches of a batch of images 0, 1, ..., which are their labels."""
    count = max(own, 1)  # a process without one gets the batch's first
    views = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
    batch = Batch(
        views, views if high_res else None, torch.arange(count), torch.arange(count), (), torch.ones(count, 2)
    )
    accelerator = SimpleNamespace(device=torch.device("cpu"), num_processes=num_processes)
    model = SimpleNamespace(normalize=torch.Tensor.float)
    step = TrainStep(None, model, None, None, TrainingConfig(gradient_accumulation_steps=steps), accelerator)
    return step._micro_batches(batch, PREPROCESSING, own, whole)


def test_a_process_with_fewer_images_than_micro_batches_repeats_its_first():
    """Of 5 images in two micro-batches by 3 processes, the last one has a single image."""
    first, last = split(2, 5, 3, 2), split(1, 5, 3, 2)
    assert [(part.labels.tolist(), part.share) for part in first] == [([0], 0.2), ([1], 0.2)]
    assert [(part.labels.tolist(), part.share) for part in last] == [([0], 0.2), ([0], 0.0)]
    [part] = split(0, 2, 3, 4)
    assert (part.labels.tolist(), part.share) == ([0], 0.0)


def test_high_resolution_images_are_split_alike():
    parts = split(5, 5, 1, 2, high_res=True)
    assert [(len(part.images), len(part.high_res)) for part in parts] == [(3, 3), (2, 2)]
    assert [part.share for part in parts] == [0.6, 0.4]
    assert split(1, 1, 1, 1)[0].high_res is None


@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 23))
def test_all_processes_have_as_many_micro_batches_and_every_image_counts_once(num_processes, steps, length):
    batches = [
        EpochBatches(length, 9, shuffle=True, process=process, num_processes=num_processes)
        for process in range(num_processes)
    ]
    for number in range(batches[0].num_batches):
        parts = [split(*each.counts(number), num_processes, steps) for each in batches]
        assert len({len(own) for own in parts}) == 1
        assert sum(part.share for own in parts for part in own) == pytest.approx(1)
        assert all(len(part.labels) for own in parts for part in own)

from pathlib import Path

import pytest

from ramstrans.bench.config import BATCH_OPTIONS, LOADER_OPTIONS, BenchConfig
from ramstrans.data.config import DataConfig
from ramstrans.errors import UsageError

DATA = DataConfig("folder", Path("photographs"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"repeats": 0}, "--repeats is 0; give 1 or more"),
        ({"threads": -1}, "--threads is -1"),
        ({"cases": ("nonsense",)}, "there are inference-224-fp32, "),
        ({"cases": ("memory-448-batch1",), "data": DATA}, "--cases goes without --data.root"),
        ({"cases": ("memory-448-batch1",), "models": ("a",)}, "--cases goes without --models"),
        ({"models": ("a",), "data": DATA}, "--models goes without --data.root"),
        ({"run": Path("run")}, "--run has no effect here; give --data.root too"),
        ({"num_images": 5, "models": ("a",)}, "--num_images has no effect here"),
        ({"batch_size": 5}, "--batch_size has no effect here; give --models or --data.root too"),
    ],
)
def test_what_does_not_go_together_is_told(fields, said):
    with pytest.raises(UsageError, match=said):
        BenchConfig(**fields)


def test_options_of_the_loader_are_fields():
    batches = {"batch_size": 5, "precision": "bf16"}
    fields = {"run": Path("run"), "num_images": 7} | batches
    assert set(fields) == {*LOADER_OPTIONS, *BATCH_OPTIONS}
    assert BenchConfig(data=DATA, **fields).of_loader
    assert BenchConfig(models=("a",), **batches).batch_size == 5

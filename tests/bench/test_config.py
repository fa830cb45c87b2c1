from pathlib import Path

import pytest

from ramstrans.bench.config import LOADER_OPTIONS, BenchConfig
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
        ({"run": Path("run")}, "--run is of the loader's benchmark; give --data.root too"),
        ({"num_images": 5}, "--num_images is of the loader's"),
    ],
)
def test_what_does_not_go_together_is_told(fields, said):
    with pytest.raises(UsageError, match=said):
        BenchConfig(**fields)


def test_options_of_the_loader_are_fields():
    fields = {"run": Path("run"), "batch_size": 5, "num_images": 7, "precision": "bf16"}
    assert set(fields) == set(LOADER_OPTIONS)
    assert BenchConfig(data=DATA, **fields).of_loader

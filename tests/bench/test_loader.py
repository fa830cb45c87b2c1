import pytest
import torch

from ramstrans.bench import loader
from ramstrans.bench.loader import (
    SPLITS,
    LoaderResult,
    loader_table,
    measure_loader,
    prepare_loading,
    subsample,
)
from ramstrans.bench.timing import Quartiles
from ramstrans.data.config import DataConfig
from ramstrans.errors import DataError

CPU = torch.device("cpu")


@pytest.fixture
def prepared(trained, birds):
    return prepare_loading(DataConfig("cub", birds), trained.folder, CPU, batch_size=4)


@pytest.mark.parametrize(("use", "num_images"), [("evaluation", 6), ("training", 11)])
def test_a_trained_run_beside_its_loader(prepared, use, num_images):
    result = measure_loader(use, prepared, CPU, num_rounds=1)
    assert (result.use, result.num_images) == (use, num_images)
    assert min(result.first_pass, result.loader.median, result.model.median, result.together.median) > 0
    assert result.to_json()["share"] == result.share._asdict()


def test_images_per_second_by_hand(prepared, monkeypatch):
    """Together 10 s for 6 images; the loader alone 6 s, the model alone 4 s for 4."""
    seconds = {"loader": [6.0, 3.0], "model": [4.0, 8.0], "together": [10.0, 12.0]}
    monkeypatch.setattr(loader, "interleave", lambda *_args, **_options: seconds)
    result = measure_loader("evaluation", prepared, CPU)
    assert result.loader == Quartiles(1.5, 1.25, 1.75)
    assert result.model == Quartiles(0.75, 0.625, 0.875)
    assert result.share == Quartiles(0.8, 0.7, 0.9)


def test_the_default_model_and_the_options_of_the_data(birds):
    data = DataConfig("cub", birds, num_workers=1, cache="memory")
    prepared = prepare_loading(data, None, CPU, batch_size=4, num_images=3)
    assert prepared.config.model.backbone == "deit_tiny_patch16_224"
    assert prepared.config.model.num_classes == 3
    assert [len(prepared.images.of_split(split)) for split in SPLITS.values()] == [3, 3]
    built = loader.loader_of("training", prepared, CPU)
    assert built.num_workers == 1
    assert loader.drain(built).images.shape == (3, 3, 224, 224)


def test_images_of_classes_that_the_run_does_not_know_are_refused(trained, colors):
    with pytest.raises(DataError, match="not among the model's"):
        prepare_loading(DataConfig("folder", colors), trained.folder, CPU)


@pytest.mark.parametrize(
    ("count", "expected"), [(2, (0, 3)), (3, (0, 2, 4)), (6, tuple(range(6))), (9, tuple(range(6)))]
)
def test_a_subsample_is_spread_over_all(count, expected):
    assert subsample(tuple(range(6)), count) == expected


def test_the_table_has_a_row_per_use():
    rate = Quartiles(2.0, 1.0, 3.0)
    table = loader_table([LoaderResult(use, 8, 5.0, rate, rate, rate, rate) for use in SPLITS])
    assert list(table.columns[0].cells) == ["evaluation", "training"]
    assert list(table.columns[-1].cells) == ["2.000", "2.000"]

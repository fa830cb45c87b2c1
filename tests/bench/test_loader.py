import json

import pytest
import torch

from ramstrans.bench import loader
from ramstrans.bench.config import BenchConfig
from ramstrans.bench.loader import LoaderResult, loader_table, prepare_loading, run_loader, thin
from ramstrans.bench.timing import Spread
from ramstrans.data.config import DataConfig
from ramstrans.errors import DataError

CPU = torch.device("cpu")


def config_of(root, name="cub", data=None, **fields):
    return BenchConfig(data=DataConfig(name, root, **data or {}), **{"batch_size": 4, "repeats": 2} | fields)


def test_a_trained_run_beside_its_loader(trained, birds, tmp_path):
    told = []
    config = config_of(birds, run=trained.folder)
    results = run_loader(config, tmp_path, CPU, command="x", progress=lambda *a: told.append(a))
    assert [(result.use, result.num_images) for result in results] == [("evaluation", 6), ("training", 11)]
    for result in results:
        assert result.first_pass > 0
        assert result.together.median > 0
        assert result.share.low <= result.share.median <= result.share.high
    assert told[-1][:2] == (16, 16)
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["options"]["data"]["root"] == str(birds)
    assert written["loader"] == json.loads(json.dumps([result.to_json() for result in results]))


def test_images_a_second_by_hand(trained, birds, monkeypatch):
    """Together 10 s for 6 images; the loader alone 6 s, the model alone 4 s for 4."""
    seconds = {"loader": [6.0, 3.0], "model": [4.0, 8.0], "together": [10.0, 12.0]}
    monkeypatch.setattr(loader, "interleave", lambda *_args, **_options: seconds)
    prepared = prepare_loading(config_of(birds, run=trained.folder), CPU)
    result = loader.measure_use("evaluation", prepared, CPU, 2, lambda: None)
    assert result.loader == Spread(1.5, 1.25, 1.75)
    assert result.model == Spread(0.75, 0.625, 0.875)
    assert result.share == Spread(0.8, 0.7, 0.9)


def test_the_default_model_has_the_classes_of_the_data(birds):
    prepared = prepare_loading(config_of(birds), CPU)
    assert prepared.config.model.backbone == "deit_tiny_patch16_224"
    assert prepared.config.model.num_classes == 3
    assert prepared.preprocessing.crop == (224, 224)


def test_options_of_the_data_arrive(birds):
    prepared = prepare_loading(config_of(birds, data={"num_workers": 1, "cache": "memory"}), CPU)
    built = loader.loader_of("training", prepared, CPU)
    assert built.num_workers == 1
    assert loader.exhausted(built).images.shape == (4, 3, 224, 224)


def test_photographs_of_other_classes_than_the_run_knows(trained, colors):
    with pytest.raises(DataError, match="not among the model's"):
        prepare_loading(config_of(colors, "folder", run=trained.folder), CPU)


@pytest.mark.parametrize(
    ("count", "expected"), [(2, (0, 3)), (3, (0, 2, 4)), (6, tuple(range(6))), (9, tuple(range(6)))]
)
def test_few_photographs_are_spread_over_all(count, expected):
    assert thin(tuple(range(6)), count) == expected


def test_the_table_has_a_row_for_each_use():
    rate = Spread(1.0, 1.0, 1.0)
    results = [
        LoaderResult(use, 8, 2.0, rate, rate, rate, Spread(share, 0, 1))
        for use, share in (("evaluation", 0.96), ("training", 0.94))
    ]
    table = loader_table(results)
    assert table.row_count == 2
    assert list(table.columns[-1].cells) == ["yes", "no"]

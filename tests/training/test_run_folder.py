from pathlib import Path

import pytest

from ramstrans.data.config import DataConfig
from ramstrans.training.config import RunConfig, TrainingConfig
from ramstrans.training.run_folder import options_of


def test_paths_of_data_and_caches_are_kept_absolute(tmp_path, monkeypatch):
    (tmp_path / "birds.csv").touch()
    monkeypatch.chdir(tmp_path)
    data = DataConfig(
        "table", Path("birds.csv"), image_folder=Path("images"), cache="disk", cache_dir=Path("c")
    )
    options = options_of(RunConfig(data, training=TrainingConfig(finetune="head", probe_cache=Path("p"))))
    assert options["training"]["probe_cache"] == str(tmp_path / "p")
    kept = options["data"]
    expected = {"root": "birds.csv", "image_folder": "images", "cache_dir": "c"}
    assert {name: kept[name] for name in expected} == {
        name: str(tmp_path / path) for name, path in expected.items()
    }


@pytest.mark.parametrize("root", [None, Path("ethz/food101")])
def test_a_name_on_the_hub_stays(root):
    kept = options_of(RunConfig(data=DataConfig("hugging_face", root)))["data"]
    assert kept["root"] == (root and str(root))

import warnings
from pathlib import Path
from typing import get_args

import pytest

from ramstrans.data.build import READERS
from ramstrans.data.config import DataConfig, DatasetFormat
from ramstrans.errors import ConfigError


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_a_cache_folder_that_is_ignored_is_told(cache):
    with pytest.warns(UserWarning, match=r"cache_dir is ignored without data\.cache disk"):
        DataConfig(cache=cache, cache_dir=Path("kept"))


def test_a_cache_folder_that_is_used_is_not_told():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert DataConfig(cache="disk", cache_dir=Path("kept")).cache_dir == Path("kept")
        assert DataConfig(cache="disk").cache_dir is None


def test_each_layout_has_a_reader():
    assert set(get_args(DatasetFormat)) == set(READERS)


@pytest.mark.parametrize(
    ("option", "value", "owner"),
    [("aircraft_level", "family", "fgvc_aircraft"), ("train_folder", "train_mini", "inaturalist")],
)
def test_an_option_of_another_layout_is_told(option, value, owner):
    with pytest.warns(UserWarning, match=rf"data\.{option} is ignored without data\.name {owner}"):
        DataConfig("cub", Path("birds"), **{option: value})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert getattr(DataConfig(owner, Path("birds"), **{option: value}), option) == value
        DataConfig("cub", Path("birds"), **{option: getattr(DataConfig, option)})


def test_only_toybirds_need_no_root():
    for name in READERS:
        if name == "toybirds":
            assert DataConfig(name).root is None
        else:
            with pytest.raises(ConfigError, match=f"data.name is '{name}' but no --data.root was given"):
                DataConfig(name)

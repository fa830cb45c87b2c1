import warnings
from pathlib import Path
from typing import get_args

import pytest

from ramstrans.data.build import READERS
from ramstrans.data.config import DataConfig, DatasetFormat
from ramstrans.errors import ConfigError


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_an_ignored_cache_folder_warns(cache):
    with pytest.warns(UserWarning, match=r"cache_dir is ignored without data\.cache disk"):
        DataConfig(cache=cache, cache_dir=Path("kept"))


def test_a_cache_folder_that_is_used_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert DataConfig(cache="disk", cache_dir=Path("kept")).cache_dir == Path("kept")
        assert DataConfig(cache="disk").cache_dir is None


def test_each_format_has_a_reader():
    assert set(get_args(DatasetFormat)) == set(READERS)


@pytest.mark.parametrize(
    ("option", "value", "owner"),
    [("aircraft_level", "family", "fgvc_aircraft"), ("train_folder", "train_mini", "inaturalist")],
)
def test_an_option_of_another_format_warns(option, value, owner):
    with pytest.warns(UserWarning, match=rf"data\.{option} is ignored without data\.name {owner}"):
        DataConfig("cub", Path("birds"), **{option: value})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert getattr(DataConfig(owner, Path("birds"), **{option: value}), option) == value
        DataConfig("cub", Path("birds"), **{option: getattr(DataConfig, option)})


@pytest.mark.parametrize("name", READERS)
def test_a_config_is_valid_without_data(name):
    assert DataConfig(name).root is None


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("val_fraction", 1, r"a number in \[0, 1\)"),
        ("test_fraction", 0, r"a number in \(0, 1\)"),
        ("rand_magnitude", 31, "0 to 30"),
        ("balance", 1.5, r"a number in \[0, 1\]"),
        ("read_timeout", -1, "0 or more"),
        ("shuffle_window", 0, "1 or more"),
    ],
)
def test_a_number_out_of_bounds_is_refused(option, value, allowed):
    with pytest.raises(ConfigError, match=rf"data\.{option} is {value}; give {allowed}"):
        DataConfig(**{option: value})

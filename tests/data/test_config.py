import warnings
from pathlib import Path

import pytest

from ramstrans.data.config import DataConfig


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_a_cache_folder_that_is_ignored_is_told(cache):
    with pytest.warns(UserWarning, match=rf"cache_dir is ignored with data\.cache {cache}; .*cache disk"):
        DataConfig(cache=cache, cache_dir=Path("kept"))


def test_a_cache_folder_that_is_used_is_not_told():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert DataConfig(cache="disk", cache_dir=Path("kept")).cache_dir == Path("kept")
        assert DataConfig(cache="disk").cache_dir is None

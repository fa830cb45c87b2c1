import pytest

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import ConfigError


@pytest.mark.parametrize("resize", [48, 53, (32, 48), (37, 59)])
def test_a_resize_that_leaves_room_is_allowed(resize):
    assert Preprocessing(resize, (32, 48)).resize == resize


@pytest.mark.parametrize("resize", [0, 47, (31, 48), (32, 47), (48, 32)])
def test_a_resize_below_the_crop_is_refused(resize):
    with pytest.raises(ConfigError, match=r"too small for the crop of \(32, 48\)"):
        Preprocessing(resize, (32, 48))


def test_a_crop_of_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"crop is \(0, 5\)"):
        Preprocessing(64, (0, 5))

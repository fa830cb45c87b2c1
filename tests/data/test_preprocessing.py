import pytest

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import ConfigError


@pytest.mark.parametrize("resize", [48, 53, (32, 48), (37, 59)])
def test_a_resize_that_leaves_room_is_allowed(resize):
    assert Preprocessing(resize, (32, 48)).resize == resize


@pytest.mark.parametrize("resize", [0, 47, (31, 48), (32, 47), (48, 32), (64,), (64, 64, 64)])
def test_a_resize_below_the_crop_is_refused(resize):
    with pytest.raises(ConfigError, match=r"too small for the crop of \(32, 48\)"):
        Preprocessing(resize, (32, 48))


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": (0, 5)},
        {"crop": (5,)},
    ],
)
def test_wrong_values_are_named(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"{name} is"):
        Preprocessing(**{"resize": 64, "crop": (32, 48)} | wrong)

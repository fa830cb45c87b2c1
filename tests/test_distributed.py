import pytest
import torch

from ramstrans.distributed import choose_device
from ramstrans.errors import UsageError


def test_auto_is_a_device_that_computes():
    assert torch.ones(3, device=choose_device("auto")).sum() == 3


@pytest.mark.parametrize("name", ["toaster", "cuda:997", "meta", ""])
def test_a_device_that_is_not_there_is_a_usage_error(name):
    with pytest.raises(UsageError, match="auto"):
        choose_device(name)

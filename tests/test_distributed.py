import pytest
import torch

from ramstrans.distributed import choose_device, from_first_process, process_index
from ramstrans.errors import UnreadableImageError, UsageError
from tests.processes import start_ranks, wait_ranks


def test_auto_is_a_device_that_computes():
    assert torch.ones(3, device=choose_device("auto")).sum() == 3


@pytest.mark.parametrize("name", ["toaster", "cuda:997", "meta", ""])
def test_a_device_that_is_not_there_is_a_usage_error(name):
    with pytest.raises(UsageError, match="auto"):
        choose_device(name)


def ask_the_first(error):
    """The outcome of a process whose first one fails."""

    def work():
        assert process_index() == 0, "others must not work"
        if error:
            raise error
        return "found"

    torch.distributed.init_process_group("gloo")
    try:
        print(from_first_process(work))  # noqa: T201
    except Exception as raised:  # noqa: BLE001 - whatever it is
        print(type(raised).__name__, raised)  # noqa: T201
    torch.distributed.destroy_process_group()
    return 0


@pytest.mark.parametrize(
    ("error", "others"),
    [
        (None, "found"),
        (UnreadableImageError("a.jpg", "empty file"), "UnreadableImageError a.jpg: empty file"),
        (OSError(5, "Input/output error"), "RuntimeError OSError: [Errno 5] Input/output error"),
    ],
)
def test_an_error_of_the_first_process_is_raised_in_all(error, others):
    first, second = wait_ranks(start_ranks(2, ask_the_first, error))
    assert first.stdout.strip() == (f"{type(error).__name__} {error}" if error else "found")
    assert second.stdout.strip() == others

"""Bytes are counted exactly, errors about them recognised, and amounts read and written."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.errors import TrainingError, UsageError
from ramstrans.options import parse_bytes
from ramstrans.training.loop import TrainLoop
from ramstrans.training.memory import OUT_OF_MEMORY, format_bytes, is_out_of_memory, peak_bytes
from tests.training.builders import metrics_log, tiny_loader, tiny_model

CPU = torch.device("cpu")


def take(count):
    return torch.empty(count, dtype=torch.uint8)


def test_the_peak_of_a_known_pattern_is_exact():
    def run():
        first = take(1000)
        second = take(300)
        del first  # 1300 were held
        third = take(500)
        return second, third

    assert peak_bytes(run, CPU) == 1300


def test_what_was_there_before_and_views_of_it_do_not_count():
    before = take(10_000)
    assert peak_bytes(lambda: before[3:].mul_(2), CPU) == 0
    assert peak_bytes(lambda: (before.clone()[5:], before[7:]), CPU) == 10_000


def test_what_the_backward_pass_keeps_and_creates_counts():
    weight = torch.zeros(1000, requires_grad=True)

    def run():
        weight.exp().sum().backward()

    assert peak_bytes(run, CPU) == pytest.approx(2 * 4000, abs=16)  # the output of exp, and its gradient


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_counts_alike():
    assert (
        peak_bytes(lambda: torch.empty(2**20, dtype=torch.uint8, device="cuda"), torch.device("cuda"))
        == 2**20
    )


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a capacity of 8"), True),
        (
            RuntimeError(
                "err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 17 bytes"
            ),
            True,
        ),
        (RuntimeError("[enforce fail] data. DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("size mismatch"), False),
    ],
)
def test_errors_about_memory_are_recognised(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_run_that_runs_out_of_memory_ends_with_what_to_try(colors, tmp_path, where):
    from ramstrans.data.datasets.image_folder import read_image_folder
    from ramstrans.training.config import TrainingConfig

    model = tiny_model()

    def allocate(*_):
        torch.empty(2**50)

    def fail(_module, _args, output):
        allocate() if where == "forward" else output.register_hook(allocate)

    model.encoder.model.blocks[1].register_forward_hook(fail)
    log, accelerator = metrics_log(tmp_path)
    loader = tiny_loader(read_image_folder(colors).of_split("train"))
    loop = TrainLoop(model, loader, None, TrainingConfig(max_steps=1), accelerator, log)
    with pytest.raises(TrainingError) as caught:
        loop.run()
    assert str(caught.value) == OUT_OF_MEMORY
    assert "DefaultCPUAllocator" in str(caught.value.__cause__)


@given(st.floats(0.001, 1000), st.sampled_from(["MB", "GB", "TB", "MiB", "GiB", "TiB", "gb"]))
def test_amounts_are_read(number, unit):
    base = 1024 if "i" in unit else 1000
    power = {"M": 2, "G": 3, "T": 4}[unit[0].upper()]
    assert parse_bytes(f"{number:.6f}{unit}") == round(float(f"{number:.6f}") * base**power)


@pytest.mark.parametrize("text", ["", "12", "GB", "-3GB", "12 KB", "12GBs", "0GB", "nanGB", "1e3GB", "infGB"])
def test_anything_else_is_refused(text):
    with pytest.raises(UsageError, match=r"is not an amount of memory; give e\.g\. 12GB"):
        parse_bytes(text)


@pytest.mark.parametrize(("count", "text"), [(0, "0.0 MB"), (999_400_000, "999 MB"), (1e9, "1.0 GB")])
def test_amounts_are_written(count, text):
    assert format_bytes(count) == text

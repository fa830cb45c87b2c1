"""Memory of tensors: count the bytes of a call, format amounts, recognise out-of-memory errors."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ramstrans.errors import TrainingError

SIGNS = ("defaultcpuallocator", "not enough memory", "out of memory", "cublas_status_alloc_failed")
"""Parts of out-of-memory messages that Accelerate does not recognise, in lower case."""

OUT_OF_MEMORY = (
    "out of memory in a training step; try in this order: more --training.gradient_accumulation_steps, "
    "--training.gradient_checkpointing true, --training.precision bf16, a smaller --model.image_size, "
    "--training.fsdp true on several GPUs; run `ramstrans plan` to measure what fits"
)
"""The message of a run that ran out of memory."""


class TensorMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that operators create while it is active, until they are freed.

    Exact and repeatable, but blind to scratch space inside kernels.

    Attributes:
        current: Bytes held now.
        peak: Most bytes held at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.current = self.peak = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        _types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Run an operator; count the storages of its results that its arguments do not share."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        known = {id(tensor.untyped_storage()) for tensor in tensors_in((args, *kwargs.values()))}
        for tensor in tensors_in((result,)):
            storage = tensor.untyped_storage()
            if id(storage) not in known | self._storages.keys():
                self._count(storage, storage.nbytes())
        return result

    def _count(self, storage: torch.UntypedStorage, size: int) -> None:
        def free(_: object, key: int = id(storage)) -> None:
            del self._storages[key]
            self.current -= size

        self._storages[id(storage)] = weakref.ref(storage, free)
        self.current += size
        self.peak = max(self.peak, self.current)


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Count the most bytes of tensors that a call holds at once, beyond those held before.

    Args:
        run: The call. Call it once before, so that what is created only once does not count.
        device: The CPU, where `TensorMemory` counts, or CUDA device that it computes on.

    >>> peak_bytes(lambda: torch.zeros(5) + torch.zeros(5), torch.device("cpu"))
    60
    """
    if device.type == "cpu":
        counter = TensorMemory()
        with counter:
            run()
        return counter.peak
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device) - before)


def tensors_in(values: Iterable[object]) -> Iterator[Tensor]:
    """Yield the tensors among some values, however nested."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Iterable) and not isinstance(value, str):
            yield from tensors_in(value)


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Sum the bytes of some tensors."""
    return sum(tensor.nbytes for tensor in tensors)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means that a CPU or GPU did not have enough memory.

    >>> is_out_of_memory(RuntimeError("MPS backend out of memory (allocated: 5 GB)"))
    True
    >>> is_out_of_memory(RuntimeError("shapes do not match"))
    False
    """
    if isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error):
        return True
    return any(sign in str(error).lower() for sign in SIGNS)


@contextmanager
def out_of_memory_errors() -> Iterator[None]:
    """Raise a TrainingError that names the options to try where a step inside runs out of memory.

    >>> with out_of_memory_errors():
    ...     raise RuntimeError("MPS backend out of memory (allocated: 5 GB)")
    Traceback (most recent call last):
    ramstrans.errors.TrainingError: out of memory in a training step; ...
    """
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise TrainingError(OUT_OF_MEMORY) from error
        raise


def format_bytes(count: float) -> str:
    """Format an amount of memory in units of 1000.

    >>> format_bytes(12_345_678_901), format_bytes(56_700_000), format_bytes(345_000)
    ('12.3 GB', '57 MB', '0.3 MB')
    """
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"

"""The most memory that a call holds at a time, beyond what was there before: counted, so without noise."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors that a call holds at a time, beyond those before it.

    On a CPU, what torch's allocator hands out: scratch space inside of libraries is not seen. On a GPU,
    the counter of torch's caching allocator.

    Args:
        run: The call, after a first one: what is made once is not counted.
        device: Where it computes; a CPU or a CUDA device.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    assert device.type == "cpu", "other devices have no such counter"
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        return peak_of(json.loads(path.read_text(encoding="utf-8"))["traceEvents"])


def peak_of(events: Sequence[Mapping[str, Any]]) -> int:
    """The highest sum of bytes taken and given back, of the memory events of a trace.

    >>> taken = [(2.0, 300), (1.0, 100), (3.0, -100), (4.0, 50)]
    >>> peak_of([{"name": "[memory]", "ts": ts, "args": {"Bytes": count}} for ts, count in taken])
    400
    """
    memory = [event for event in events if event.get("name") == "[memory]"]
    changes: list[int] = [event["args"]["Bytes"] for event in sorted(memory, key=lambda event: event["ts"])]
    return max(accumulate(changes, initial=0))

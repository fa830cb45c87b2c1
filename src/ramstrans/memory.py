"""The most memory that a call holds at a time, beyond what was there before: counted, so without noise."""

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from ramstrans.errors import UsageError

MARK = "ramstrans.memory.mark"
"""What marks are called in a trace."""

QUIET = ("KINETO_LOG_LEVEL", "6")
"""Keeps the profiler from telling on standard error of each start, and that there is no GPU."""

UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors that a call holds at a time, beyond those before it; see `phase_peaks`."""
    return max(phase_peaks(lambda _: run(), device))


def phase_peaks(run: Callable[[Callable[[], None]], object], device: torch.device) -> list[int]:
    """The most bytes of tensors that a call holds at a time in each of its phases, beyond those before it.

    On a CPU, what torch's allocator hands out: scratch space inside of libraries is not seen. On a GPU,
    the counter of torch's caching allocator.

    Args:
        run: The call, after a first one: what is made once is not counted. It is handed `mark`, and calls
            it where one phase ends and the next begins.
        device: Where it computes; a CPU or a CUDA device.

    Returns:
        One number more than there were marks; what is held on entering a phase counts in it.
    """
    if device.type == "cuda":
        return _cuda_phase_peaks(run, device)
    assert device.type == "cpu", "other devices have no such counter"
    os.environ.setdefault(*QUIET)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run(_mark_trace)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        return peaks_of(json.loads(path.read_text(encoding="utf-8"))["traceEvents"])


def _mark_trace() -> None:
    with record_function(MARK):
        pass


def _cuda_phase_peaks(run: Callable[[Callable[[], None]], object], device: torch.device) -> list[int]:
    peaks: list[int] = []

    def mark() -> None:  # the allocator counts as memory is asked for: there is no kernel to wait for
        peaks.append(torch.cuda.max_memory_allocated(device) - before)
        torch.cuda.reset_peak_memory_stats(device)

    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run(mark)
    mark()
    return peaks


def peaks_of(events: Sequence[Mapping[str, Any]]) -> list[int]:
    """The highest sum of bytes taken and given back in each phase of a trace, which its marks part.

    >>> taken = [(2.0, 300), (1.0, 100), (3.0, -100), (4.0, 50)]
    >>> memory = [{"name": "[memory]", "ts": ts, "args": {"Bytes": count}} for ts, count in taken]
    >>> peaks_of(memory), peaks_of([*memory, {"name": MARK, "ts": 3.5}])
    ([400], [400, 350])
    """
    counted = [event for event in events if event.get("name") in ("[memory]", MARK)]
    held, peaks = 0, [0]
    for event in sorted(counted, key=lambda event: event["ts"]):
        if event["name"] == MARK:
            peaks.append(held)
        else:
            held += event["args"]["Bytes"]
            peaks[-1] = max(peaks[-1], held)
    return peaks


def device_bytes(device: torch.device) -> int:
    """Bytes that this process can still have of a device, those that torch keeps without need included."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return int(psutil.virtual_memory().available)


def parse_bytes(text: str) -> int:
    """Bytes of an amount with its unit.

    Raises:
        UsageError: It is not one.

    >>> parse_bytes("12GB"), parse_bytes("1.5 GiB")
    (12000000000, 1610612736)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([MGT]i?B)\s*", text, re.IGNORECASE)
    count = round(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if count < 1:
        raise UsageError(f"'{text}' is no amount of memory; give e.g. 12GB, 80GiB or 500MB")
    return count


def format_bytes(count: float) -> str:
    """An amount for people, in units of 1000.

    >>> format_bytes(12_345_678_901), format_bytes(56_700_000), format_bytes(345_000)
    ('12.3 GB', '57 MB', '0.3 MB')
    """
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"

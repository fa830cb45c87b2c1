"""Measure cases one after the other."""

import gc

import torch

from benchmarks.candidates import build_candidates
from benchmarks.cases import Case
from benchmarks.results import Mode, Outcome, Result
from ramstrans.bench.flops import macs_of
from ramstrans.bench.timing import interleave
from ramstrans.console import Progress, no_progress
from ramstrans.training.memory import peak_bytes


def measure_case(
    name: str,
    case: Case,
    device: torch.device,
    *,
    num_rounds: int | None = None,
    progress: Progress = no_progress,
) -> Result:
    """Measure one case, in every mode that it has on this device.

    Args:
        name: Name of the case.
        case: What to measure.
        device: Where to compute.
        num_rounds: How often each candidate is timed; None: as the case has it.
        progress: Called after each round.
    """
    why_not = case.why_not(device.type)
    if why_not is not None:
        return Result(name, case, device.type, {}, why_not=why_not)
    outcomes: dict[Mode, Outcome] = {}
    try:
        for mode in modes_of(case):
            outcomes[mode] = measure(case, device, num_rounds or case.num_rounds, mode, progress)
    except torch.OutOfMemoryError:
        return Result(name, case, device.type, {}, why_not="out of memory")
    finally:
        gc.collect()
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return Result(name, case, device.type, outcomes, macs_of(case.model_config()))


def modes_of(case: Case) -> tuple[Mode, ...]:
    """Eager, and compiled too for times on a GPU."""
    return ("eager", "compiled") if case.needs_gpu and case.measure == "time" else ("eager",)


def measure(
    case: Case, device: torch.device, num_rounds: int, mode: Mode, progress: Progress = no_progress
) -> Outcome:
    """Raw values of one case in one mode."""
    candidates = build_candidates(case, device, compiled=mode == "compiled")
    num_images = {name: candidate.num_images for name, candidate in candidates.items()}
    if case.measure == "time":
        return Outcome(interleave(candidates, num_rounds, device, progress=progress), num_images)
    values: dict[str, list[float]] = {}
    for name, candidate in candidates.items():
        candidate.run()  # what is created only once does not count
        values[name] = [peak_bytes(candidate.run, device)]
    return Outcome(values, num_images)

"""Measure cases one after the other, and write down each as it is done."""

import gc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from ramstrans.bench.cases import Case
from ramstrans.bench.contestants import build_contestants
from ramstrans.bench.flops import Macs, macs_of
from ramstrans.bench.ground import Ground
from ramstrans.bench.machine import describe_machine
from ramstrans.bench.report import PICTURE_FILE, plot_results, write_json
from ramstrans.bench.results import Mode, Outcome, Result
from ramstrans.bench.timing import interleave, waiter
from ramstrans.console import Progress, no_progress
from ramstrans.models.saliency.rollout import choose_implementation
from ramstrans.training.memory import peak_bytes


def run_cases(
    cases: Mapping[str, Case],
    output: Path,
    device: torch.device,
    *,
    num_rounds: int | None = None,
    command: str = "",
    progress: Progress = no_progress,
) -> list[Result]:
    """Measure cases into a folder: bench.json, whole after each case, and bench.png in the end.

    Args:
        cases: By name.
        output: The folder.
        device: Where to compute.
        num_rounds: How often each contestant is timed; None: as each case says.
        command: The line that started it, for bench.json.
        progress: Told (calls done, calls in all, what).
    """
    machine = describe_machine(device)
    results: list[Result] = []
    for result in measure_cases(cases, device, num_rounds=num_rounds, progress=progress):
        results.append(result)
        write_json(output, machine, command=command, cases=[one.to_json() for one in results])
    plot_results(results, output / PICTURE_FILE)
    return results


def measure_cases(
    cases: Mapping[str, Case],
    device: torch.device,
    *,
    num_rounds: int | None = None,
    progress: Progress = no_progress,
) -> Iterator[Result]:
    """Measure each case, in order; one that cannot be measured here gives a result that says why.

    Args:
        cases: By name.
        device: Where.
        num_rounds: How often each contestant is timed; None: as each case says.
        progress: Told (calls done, calls in all, what).
    """
    total = sum(num_calls(case, device, num_rounds) for case in cases.values())
    work: dict[str, Macs] = {}
    done = 0
    for name, case in cases.items():
        last = done + num_calls(case, device, num_rounds)

        def tick(name: str = name) -> None:
            nonlocal done
            done += 1
            progress(done, total, f"measuring {name}")

        progress(done, total, f"measuring {name}")
        yield measure_case(name, case, device, num_rounds=num_rounds, work=work, tick=tick)
        done = last  # out of memory, some calls were not made


def measure_case(
    name: str,
    case: Case,
    device: torch.device,
    *,
    num_rounds: int | None = None,
    work: dict[str, Macs] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Result:
    """Measure one case, in every mode that it has on this device.

    Args:
        name: Of the case.
        case: What to measure.
        device: Where.
        num_rounds: How often each contestant is timed; None: as the case says.
        work: What was counted for models of earlier cases; this case's is added.
        tick: Told after each call.
    """
    why_not = case.why_not(device.type)
    if why_not is not None:
        return Result(name, case, device.type, {}, why_not=why_not)
    outcomes: dict[Mode, Outcome] = {}
    try:
        for mode in modes_of(case, device):
            outcomes[mode] = measure(case, device, num_rounds or case.num_rounds, mode, tick)
    except torch.OutOfMemoryError:
        return Result(name, case, device.type, {}, why_not="out of memory")
    finally:
        tidy(device)
    key, work = repr(case.model_config()), {} if work is None else work
    if key not in work:
        work[key] = macs_of(case.model_config())
    fused = case.task == "inference" or Ground(case, device).fused
    rollouts = {mode: choose_implementation(device, compiled=mode == "compiled") for mode in outcomes}
    return Result(name, case, device.type, outcomes, work[key], "fused" if fused else "math", rollouts)


def modes_of(case: Case, device: torch.device) -> tuple[Mode, ...]:
    """How the contestants are run: eager, and compiled too where a GPU is needed for time."""
    both = case.needs_gpu and case.measure == "time" and device.type == "cuda"
    return ("eager", "compiled") if both else ("eager",)


def num_calls(case: Case, device: torch.device, num_rounds: int | None) -> int:
    """Calls of contestants that measuring a case takes, those to warm up included."""
    if case.why_not(device.type) is not None:
        return 0
    rounds = 1 if case.measure == "memory" else num_rounds or case.num_rounds
    return len(case.figure) * len(modes_of(case, device)) * (1 + rounds)


def measure(
    case: Case, device: torch.device, num_rounds: int, mode: Mode, tick: Callable[[], None] = lambda: None
) -> Outcome:
    """Raw values of one case in one mode."""
    contestants = build_contestants(case, device, compiled=mode == "compiled")
    num_images = {name: contestant.num_images for name, contestant in contestants.items()}
    if case.measure == "time":
        return Outcome(interleave(contestants, num_rounds, wait=waiter(device), tick=tick), num_images)
    values: dict[str, list[float]] = {}
    for name, contestant in contestants.items():
        contestant.run()
        tick()
        values[name] = [peak_bytes(contestant.run, device)]
        tick()
    return Outcome(values, num_images)


def tidy(device: torch.device) -> None:
    """Give back what a case has taken: its models, compiled code, cached memory."""
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()

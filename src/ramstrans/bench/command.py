"""One benchmark, from its options to the table that is printed."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import torch
from rich.table import Table

from ramstrans.bench.config import BenchConfig
from ramstrans.bench.loader import loader_table, run_loader
from ramstrans.bench.models import Entrant, models_table, run_models
from ramstrans.bench.report import check_output, results_table
from ramstrans.bench.run import run_cases
from ramstrans.console import Progress, no_progress
from ramstrans.devices import choose_device


def default_output() -> Path:
    """`bench-<date and time>` in the current folder."""
    return Path(f"bench-{datetime.now().astimezone():%Y%m%d-%H%M%S}")


def run_bench(
    config: BenchConfig,
    output: Path,
    *,
    entrants: Mapping[str, Entrant] | None = None,
    command: str = "",
    progress: Progress = no_progress,
) -> Table:
    """Measure cases, models or the loader, into a folder.

    Args:
        config: What and how; the number of threads is set for the whole process.
        output: The folder; must not hold anything.
        entrants: What `config.models` names.
        command: The line that started it, for bench.json.
        progress: Told (calls done, calls in all, what).

    Returns:
        The table of results.

    Raises:
        RamsTransError: The device, the folder, the data or the run cannot be used; the message says why.
    """
    check_output(output)
    device = choose_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.of_loader:
        return loader_table(run_loader(config, output, device, command=command, progress=progress))
    if entrants:
        how = {"batch_size": config.batch_size, "precision": config.precision, "num_rounds": config.repeats}
        return models_table(
            run_models(entrants, output, device, **how, command=command, progress=progress)  # type: ignore[arg-type]
        )
    results = run_cases(
        config.selected, output, device, num_rounds=config.repeats, command=command, progress=progress
    )
    return results_table(results)

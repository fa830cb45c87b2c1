"""`python -m benchmarks`: measure cases, or compare two source trees."""

import argparse
import shlex
import sys
from pathlib import Path

import torch

from benchmarks.cases import BACKBONE_CASES, CASES, choose_cases
from benchmarks.compare_trees import compare, comparison_table
from benchmarks.results import Result, results_table
from benchmarks.run import measure_case
from ramstrans.bench.report import write_json
from ramstrans.console import progress_bar, results
from ramstrans.distributed import choose_device
from ramstrans.errors import RamsTransError


def main() -> int:
    """Run the benchmarks; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--cases", nargs="+", help="names of cases; default: all")
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    parser.add_argument("--repeats", type=int, help="timed rounds; default: as each case has it")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    parser.add_argument("--threads", type=int, help="threads of the CPU; default: torch's choice")
    parser.add_argument("--output", type=Path, help="folder for bench.json; default: it is not written")
    parser.add_argument(
        "--baseline", type=Path, help="src folder of another version, to be compared with this one"
    )
    options = parser.parse_args()
    try:
        return run(options)
    except RamsTransError as error:
        parser.exit(error.exit_code, f"benchmarks: {error}\n")


def run(options: argparse.Namespace) -> int:
    """List or measure what the options ask for."""
    cases, device = choose_cases(options.cases), choose_device(options.device)
    if options.list:
        for name, case in (cases if options.cases else CASES | BACKBONE_CASES).items():
            print(f"{name}: {case.describe()}")
        return 0
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.baseline:
        compared = compare(cases, options.baseline, str(device), options.repeats)
        results().print(comparison_table(compared))
        return 0
    found: list[Result] = []
    for name, case in cases.items():
        with progress_bar() as progress:
            found.append(measure_case(name, case, device, num_rounds=options.repeats, progress=progress))
        if options.output:  # after each case, in case a later one fails
            command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
            write_json(
                options.output, device, {"command": command, "cases": [one.to_json() for one in found]}
            )
    results().print(results_table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

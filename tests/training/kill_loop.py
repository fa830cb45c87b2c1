"""Kills a training process again and again: forks `ramstrans train`, so that each start costs no import.

    python -m tests.training.kill_loop SEED NUM_KILLS RUN ARGUMENT...

Starts `train ARGUMENT... --output RUN`, kills it with SIGKILL at a random moment, goes on with
`train --resume RUN`, and so on; lets the last one finish. Prints the step reached at each kill as JSON.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import ramstrans.evaluation.predict
import ramstrans.training.loop
import ramstrans.training.run
from ramstrans.cli import main


def start(arguments):
    """The process number of a fork that runs a command."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()  # with its loader's workers
            ramstrans.training.loop.LOG_EVERY = 1
            code = main(arguments)
        finally:
            os._exit(code)
    return child


def rows_of(run):
    """How many whole rows metrics.jsonl has."""
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def has_ended(child):
    return os.waitpid(child, os.WNOHANG)[0] == child


def kill_after(child, run, rows, delay):
    """Kill a process some time after metrics.jsonl has so many rows; whether it was still running."""
    end = time.monotonic() + 120
    while rows_of(run) < rows:
        assert time.monotonic() < end, "the run does not go on"
        if has_ended(child):
            return False
        time.sleep(0.002)
    time.sleep(delay)
    if has_ended(child):
        return False
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def run_with_kills(seed, num_kills, run, arguments):
    """Rows of metrics.jsonl at each kill, and the exit code of the process that finished."""
    generator, reached, command = random.Random(seed), [], ["train", *arguments, "--output", str(run)]
    for _ in range(num_kills):
        rows = rows_of(run)
        child = start(command)
        if not kill_after(child, run, max(1, rows + generator.randint(-2, 4)), generator.random() * 0.1):
            return reached, 0
        reached.append(rows_of(run))
        command = ["train", "--resume", str(run)]
    return reached, os.waitstatus_to_exitcode(os.waitpid(start(command), 0)[1])


if __name__ == "__main__":
    folder = Path(sys.argv[3])
    shutil.rmtree(folder, ignore_errors=True)
    outcome = run_with_kills(int(sys.argv[1]), int(sys.argv[2]), folder, sys.argv[4:])
    sys.stdout.write(json.dumps(outcome) + "\n")

"""Stop tiny runs by Ctrl-C at random moments: `python -m tests.stops COUNT [SEED]`; all must exit with 130.

Each run is a fork of this process, which has imported everything, but unlike those of `processes.py` it ends
as any Python does: what its threads do while the interpreter ends is what is tested. The batches are large,
so that freeing one takes long.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch.utils.tensorboard  # noqa: F401 - imported once, here, not in every fork

import ramstrans.evaluation.evaluate
import ramstrans.training.run  # noqa: F401
from ramstrans.cli import main
from ramstrans.data.toybirds.generator import make_toybirds
from tests.tiny import write_config

LONGEST = 6.0
"""Seconds from the first line of a run to its latest stop; after that it goes on for hours."""
LIMIT = 300
"""Seconds in which a run must end."""
VARIANTS = (
    ("--data.num_workers", "0"),
    ("--data.num_workers", "2"),
    ("--data.num_workers", "0", "--data.crop", "800", "--data.resize", "800", "--data.cache", "memory"),
)


def write_recipe(folder):
    """A run without an end on 120 images of 96 px, enlarged; validation and a checkpoint every other step."""
    make_toybirds(folder / "birds", num_classes=3, train_per_class=40, test_per_class=2, image_size=96)
    return write_config(
        folder / "recipe.yaml",
        folder / "birds",
        data={"resize": 448, "crop": 448},
        model={"zoom_source": "full"},
        training={"epochs": 99_999, "batch_size": 60, "optimizer": "adamw", "warmup_steps": 2},
    )


def wait_for(condition):
    end = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < end, "a run hangs"
        time.sleep(0.005)
    return found


def exit_code(pid):
    """The exit code of a process, negative for a signal, once it has ended."""
    ended = wait_for(lambda: [status for found, status in [os.waitpid(pid, os.WNOHANG)] if found])
    return os.waitstatus_to_exitcode(ended[0])


def start(arguments, errors):
    """Fork a run that writes into a file; returns its process, or in the fork the arguments of the run."""
    errors.touch()
    if pid := os.fork():
        return pid, None
    os.setsid()
    for stream in (1, 2):
        os.dup2(os.open(errors, os.O_WRONLY | os.O_APPEND), stream)
    return None, arguments


def stop_runs(count, seed, folder):
    """Count how the runs ended, with what the wrong ones wrote; a fork returns its arguments instead."""
    recipe, generator, ends = write_recipe(folder), random.Random(seed), Counter()
    for number in range(count):
        output, errors = folder / f"run{number}", folder / f"stderr{number}"
        variant = VARIANTS[number % len(VARIANTS)]
        pid, arguments = start(["train", "--config", str(recipe), "--output", str(output), *variant], errors)
        if arguments:
            return arguments
        wait_for(lambda errors=errors: errors.stat().st_size)
        time.sleep(generator.random() * LONGEST)
        os.killpg(pid, signal.SIGINT)  # as a terminal does: to the loader's processes too
        code, text = exit_code(pid), errors.read_text()
        is_right = code == 130 and text.splitlines()[-1].startswith("ramstrans: stopped")
        ends[str(code) if is_right else f"{code}: {text}"] += 1
        shutil.rmtree(output, ignore_errors=True)
    return ends


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a script starts with &
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    folder = Path(tempfile.mkdtemp())
    ended = stop_runs(count, seed, folder)
    if isinstance(ended, list):
        sys.exit(main(ended))
    shutil.rmtree(folder)
    print("\n".join(f"{times} x {end}" for end, times in ended.items()))  # noqa: T201
    sys.exit(set(ended) != {"130"})

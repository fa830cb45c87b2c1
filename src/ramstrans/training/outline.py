"""What a run is going to do, in a few lines before its first epoch."""

import math
import time

from ramstrans.console import format_duration
from ramstrans.data.records import SPLITS
from ramstrans.distributed import choose_device, synchronize
from ramstrans.plain import counted
from ramstrans.training.losses import ScaleForward
from ramstrans.training.memory import out_of_memory_errors
from ramstrans.training.optim import num_steps
from ramstrans.training.plan import num_passes, random_batch
from ramstrans.training.probe import DEFAULT_STRENGTH
from ramstrans.training.setup import Prepared, evaluation_batch_size
from ramstrans.training.step import uses_explicit_attention

MAX_TIMED = 8
"""Images in a timed pass on a CPU, where the time grows with them; GPUs take a whole micro-batch."""

TIMED_PASSES = 2
"""Of which the faster one counts: the first one warms up."""


def outline(prepared: Prepared, num_runs: int = 1) -> list[str]:
    """Describe length, time and choices of a run, which it does not change.

    The time is that of all steps and evaluations at the speed of a timed pass on this device, without
    waiting for data.

    Args:
        prepared: The run.
        num_runs: Runs of a cross-validation, of which this is the first.

    Raises:
        TrainingError: Not even one micro-batch fits into the memory of the GPU.
    """
    config, training = prepared.config, prepared.config.training
    counts = {split: len(prepared.images.of_split(split)) for split in SPLITS}
    per_epoch = math.ceil(counts["train"] / training.batch_size)
    steps = num_steps(training, per_epoch)
    epochs = math.ceil(steps / per_epoch)
    seconds = seconds_per_image(prepared) * num_passes(config, counts)
    batch = counted(training.batch_size, "image")
    length = (
        f"{counted(epochs, 'epoch')} of {counted(per_epoch, 'step')} of {batch}: {counted(steps, 'step')}"
    )
    choice = "no validation images: the last epoch is kept"
    if counts["val"]:
        choice = f"the epoch to keep is chosen on {counted(counts['val'], 'validation image')}"
    if training.is_probe:
        num_views = counts["train"] * training.probe_views + counts["val"] + counts["test"]
        length = f"the features of {counted(num_views, 'view')}, then the head is fitted"
        choice = f"its L2 penalty is chosen on {counted(counts['val'], 'validation image')}"
        if not counts["val"]:
            choice = f"no validation images: its L2 penalty is {DEFAULT_STRENGTH}"
    lines = [
        f"{length}, about {format_duration(seconds)} on {choose_device(config.device)}, if loading keeps up",
        f"{choice}; the test split ({counted(counts['test'], 'image')}) is used once, at the end",
    ]
    if num_runs > 1:
        total = format_duration(num_runs * seconds)
        lines.append(
            f"{num_runs} folds: as many runs of this length, each tested on its own part, about {total}"
        )
    return lines


def seconds_per_image(prepared: Prepared) -> float:
    """Time a training pass, forward and backward, per image; nothing is drawn at random, nothing trained."""
    config, device = prepared.config, choose_device(prepared.config.device)
    model, count = prepared.model.to(device), evaluation_batch_size(config)
    if device.type != "cuda":
        count = min(count, MAX_TIMED)
    batch = random_batch(config, prepared.preprocessing, count)
    inputs = model.normalize(batch.images, batch.high_res)
    explicit = uses_explicit_attention(config.training, device)
    forward_scale = ScaleForward(model, config.training.precision, explicit_attention=explicit)
    seconds, was_training = math.inf, model.training
    model.eval()  # without dropout, which would draw
    try:
        with out_of_memory_errors():
            for _ in range(TIMED_PASSES):
                start = time.perf_counter()
                stages = model.stages(
                    *inputs, last_region=False, boxes=batch.boxes, forward_scale=forward_scale
                )
                for stage in stages:
                    loss = stage.logits.float().sum()
                    loss.backward()  # type: ignore[no-untyped-call]  # each scale's before the next scale, as in training
                synchronize(device)
                seconds = min(seconds, time.perf_counter() - start)
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)
    return seconds / count

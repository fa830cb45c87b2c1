"""What to do when memory ran out in a step: measured if there is still room for it, else in a fixed order."""

import gc
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from ramstrans.data.loading.dataset import Batch
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.memory import device_bytes
from ramstrans.training.planning.cost import in_one_part, measure_step
from ramstrans.training.planning.fits import Ground

if TYPE_CHECKING:
    from ramstrans.training.step import TrainStep

SIGNS = (
    "defaultcpuallocator",
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "cublas_status_alloc_failed",
)
"""Words of RuntimeErrors by which allocators other than CUDA's say that there is no memory."""


def out_of_memory(error: RuntimeError) -> str | None:
    """What an error says of memory that ran out, in one line; None if it is about something else.

    >>> out_of_memory(RuntimeError("MPS backend out of memory (allocated: 5 GB). Tried to allocate 9."))
    'MPS backend out of memory (allocated: 5 GB)'
    >>> out_of_memory(RuntimeError("shapes do not match")) is None
    True
    """
    text = str(error)
    if not isinstance(error, torch.OutOfMemoryError) and not any(sign in text.lower() for sign in SIGNS):
        return None
    start = max(text.find("DefaultCPUAllocator"), 0)  # after the place in torch's source
    return re.split(r"\. |\n", text[start:].strip(), maxsplit=1)[0].rstrip(".") or "out of memory"


def advice(stepper: "TrainStep", batch: Batch, preprocessing: Preprocessing, reason: str) -> str:
    """A message on a step for which there was no memory: how large it was, and which options would fit.

    Measures on this device, if it still can; the weights change by that, so the run has to end.

    Args:
        stepper: Whose step it was.
        batch: Of the step.
        preprocessing: Mean and standard deviation of the model's input.
        reason: What the allocator said.
    """
    config, images_per_process = stepper.config, len(batch.labels)
    parts = min(config.gradient_accumulation_steps, images_per_process)
    found = list(what_fits(stepper, batch, preprocessing, parts))
    help_ = f"measured since, this fits: {', or '.join(found)}; else " if found else ""
    steps = [*([] if found else by_hand(stepper, images_per_process, parts)), *beyond(stepper)]
    at_a_time = math.ceil(images_per_process / parts)
    return (
        f"out of memory in a step of {images_per_process} images a process, {at_a_time} at a time, "
        f"{config.precision} ({reason}); {help_}try in this order: {', '.join(steps)}; "
        "`ramstrans plan` measures all of it before a run"
    )


def what_fits(stepper: "TrainStep", batch: Batch, preprocessing: Preprocessing, parts: int) -> Iterator[str]:
    """Options with which a step would have fitted, measured with and without gradient checkpointing.

    Args:
        stepper: Whose step did not.
        batch: Of that step.
        preprocessing: Mean and standard deviation of the model's input.
        parts: In which it was taken.
    """
    device, config, backbone = stepper.accelerator.device, stepper.config, stepper.model.backbone
    if stepper.accelerator.num_processes > 1 or config.compile or device.type not in ("cpu", "cuda"):
        return  # the others would wait for gradients; compiled looks would be compiled again
    single = stepper._replace(config=in_one_part(config))
    tidy(stepper)
    for checkpointing in sorted({config.gradient_checkpointing, True}):
        is_new = checkpointing != config.gradient_checkpointing
        backbone.gradient_checkpointing = checkpointing
        try:
            cost = measure_step(single, batch, preprocessing, (1, 2))
        except RuntimeError as error:
            if out_of_memory(error) is None:
                raise
            continue
        finally:
            tidy(stepper)
        ground = Ground(device_bytes(device) + cost.weights + cost.state)  # which are there already
        fitting = ground.parts(cost, len(batch.labels))
        if fitting is not None and not is_new:  # so many parts were too few, whatever was measured
            fitting = max(fitting, parts + 1) if parts < len(batch.labels) else None
        if fitting is not None:
            gradient_accumulation_steps = f"--training.gradient_accumulation_steps {fitting}"
            yield (
                f"--training.gradient_checkpointing true {gradient_accumulation_steps}"
                if is_new
                else gradient_accumulation_steps
            )


def tidy(stepper: "TrainStep") -> None:
    """Give back what a failed step has left behind: gradients, notes of queries and keys, cached memory."""
    backbone = stepper.model.backbone
    stepper.optimizer.zero_grad()
    backbone._queries, backbone._keys = [], []  # noted for a rollout that was not reached
    gc.collect()
    if stepper.accelerator.device.type == "cuda":
        torch.cuda.empty_cache()


def by_hand(stepper: "TrainStep", images_per_process: int, parts: int) -> Iterator[str]:
    """Options that leave the gradients as they are, the cheapest first."""
    if parts < images_per_process:
        yield f"--training.gradient_accumulation_steps {min(2 * parts, images_per_process)}"
    if not stepper.config.gradient_checkpointing:
        yield "--training.gradient_checkpointing true"


def beyond(stepper: "TrainStep") -> Iterator[str]:
    """Options that change what is computed, or need more machines."""
    config, (height, width) = stepper.config, stepper.model.image_size
    if config.precision == "fp32":
        yield "--training.precision bf16"
    yield f"an --model.image_size below {height}x{width}"
    if not config.fsdp:
        yield "--training.fsdp true on several GPUs"

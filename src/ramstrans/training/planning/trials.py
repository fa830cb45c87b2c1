"""Training steps of a model with random weights on random images, to see what they cost."""

import dataclasses
import gc
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from accelerate.utils import set_seed

from ramstrans.console import Progress, no_progress
from ramstrans.data.build import build_preprocessing
from ramstrans.data.loading.dataset import Batch
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.devices import choose_device
from ramstrans.errors import TrainingError
from ramstrans.memory import device_bytes, format_bytes
from ramstrans.models.methods.rams import RamsTrans, build_model
from ramstrans.training.config import RunConfig
from ramstrans.training.out_of_memory import out_of_memory
from ramstrans.training.planning.cost import (
    StepCost,
    counted_sizes,
    deeper,
    in_one_part,
    measure_step,
    num_bytes,
)
from ramstrans.training.setup import build_accelerator, use_fused_attention
from ramstrans.training.step import TrainStep, build_train_step
from ramstrans.training.trainable import set_train_mode, set_trainable

Precision = Literal["fp32", "bf16", "fp16"]

PRECISIONS: dict[str, tuple[Precision, ...]] = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")}
"""By type of device; other devices have no counter of memory."""
LEAST_TIMED = {"cpu": 1, "cuda": 16}
"""Images of a step that is timed, at least, by type of device."""
MOST_WORK = 1e10
"""Products of tokens with weights, of all looks at an image, up to which a CPU tries a model whole."""
NUM_STEPS = 1000
"""Of the schedule, which no trial comes to the end of."""


class Trial(NamedTuple):
    """What one way to take a step costs.

    Attributes:
        precision: Of autocast.
        gradient_checkpointing: Whether blocks are computed again for their gradients.
        attention: `fused` or `math`, as training would take here.
        cost: Of the whole model.
    """

    precision: Precision
    gradient_checkpointing: bool
    attention: str
    cost: StepCost


def try_all(
    config: RunConfig, depths: tuple[int, ...], depth: int, progress: Progress = no_progress
) -> list[Trial]:
    """Try every precision of this device with and without gradient checkpointing.

    Args:
        config: Of the run, its number of classes known; its device must be one of `PRECISIONS`.
        depths: Numbers of blocks to try, from `depths_of`.
        depth: Of the whole model.
        progress: Told (trials done, of how many, what).

    Raises:
        TrainingError: This device's memory is too little even for a trial.
    """
    precisions = PRECISIONS[choose_device(config.device).type]
    found, done = [], 0
    for precision in precisions:
        tried: list[list[Trial]] = []
        for blocks in depths:
            progress(done, len(precisions) * len(depths), f"measuring {precision}")
            tried.append(try_depth(config, precision, blocks))
            done += 1
        for same in zip(*tried, strict=True):
            costs = [trial.cost for trial in same]
            whole = costs[0] if len(costs) == 1 else deeper(costs[0], costs[1], (depths[0], depths[1]), depth)
            found.append(same[0]._replace(cost=whole))
    progress(done, done, "measured")
    return found


def depths_of(config: RunConfig) -> tuple[tuple[int, ...], int]:
    """Numbers of blocks to try, and that of the whole model: the whole one alone if it is not too much.

    Frozen blocks cost less than others, so with `freeze_blocks` it is always the whole one.

    Raises:
        ConfigError: The model cannot be built.
    """
    with torch.device("meta"):  # no memory is taken
        model = build_model(dataclasses.replace(config.model, weights=None))
    backbone, device = model.backbone, choose_device(config.device)
    depth = backbone.num_layers
    weights = sum(parameter.numel() for parameter in backbone.vit.blocks.parameters())
    if device.type == "cpu":
        is_small = sum(num_tokens(model)) * weights <= MOST_WORK
    else:  # weights, gradients and AdamW's two moments, with as much again for activations
        is_small = 8 * num_bytes(model.parameters()) < device_bytes(device)
    first = 2 if config.model.drop_path else 1  # the first block never drops its path
    if is_small or depth <= first + 1 or config.training.freeze_blocks:
        return (depth,), depth
    return (first, first + 1), depth


def num_tokens(model: RamsTrans) -> list[int]:
    """Patches of an image in each look."""
    return [rows * columns for rows, columns in map(model.backbone.grid_of, model.scale_sizes)]


def try_depth(config: RunConfig, precision: Precision, depth: int) -> list[Trial]:
    """Steps of a model of some blocks, without and with gradient checkpointing.

    Raises:
        TrainingError: There is not enough memory here.
    """
    trials = []
    try:
        stepper, preprocessing = build_trial(config, precision, depth)
        model, device = stepper.model, stepper.accelerator.device
        backbone = model.backbone
        sizes = counted_sizes(min(num_tokens(model)))
        batch = random_batch(config, preprocessing, sizes[1])
        for checkpointing in (False, True):
            backbone.gradient_checkpointing = checkpointing
            cost = measure_step(stepper, batch, preprocessing, sizes, LEAST_TIMED[device.type])
            fused = "fused" if backbone.vit.blocks[0].attn.fused_attn else "math"
            trials.append(Trial(precision, checkpointing, fused, cost))
    except RuntimeError as error:
        reason = out_of_memory(error)
        if reason is None:
            raise
        raise TrainingError(
            f"this device's {format_bytes(device_bytes(choose_device(config.device)))} are too little to try "
            f"a few images at a time with {depth} blocks ({reason}); give --device cpu, or another machine"
        ) from error
    finally:
        gc.collect()
    return trials


def build_trial(config: RunConfig, precision: Precision, depth: int) -> tuple[TrainStep, Preprocessing]:
    """A stepper as the loop would build it, of a model of some blocks and random weights, in one process."""
    training = in_one_part(config.training, precision=precision, compile=False, fsdp=False)
    options = config.model.backbone_options | {"depth": depth}
    model_config = dataclasses.replace(config.model, weights=None, backbone_options=options)
    config = dataclasses.replace(config, model=model_config, training=training)
    accelerator = build_accelerator(config, Path())
    set_seed(config.seed)
    model = build_model(config.model)
    model.backbone.use_fused_attention(use_fused_attention(config, accelerator))
    set_trainable(model, training)
    stepper = build_train_step(model, training, accelerator, NUM_STEPS)
    set_train_mode(model)
    statistics = model.backbone.vit.pretrained_cfg
    preprocessing = build_preprocessing(
        config.data, config.model.input_size, config.model.zoom_source, statistics["mean"], statistics["std"]
    )
    return stepper, preprocessing


def random_batch(config: RunConfig, preprocessing: Preprocessing, count: int) -> Batch:
    """Noise with labels, in the sizes that a run's loader would give."""
    generator = torch.Generator().manual_seed(config.seed)
    assert config.model.num_classes is not None, "told by the data or the user"

    def noise(height: int, width: int) -> torch.Tensor:
        return torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=generator)

    has_source = config.model.zoom_source == "full" and config.model.num_scales > 1
    return Batch(
        noise(*config.model.input_size),
        noise(*preprocessing.crop) if has_source else None,
        torch.randint(config.model.num_classes, (count,), generator=generator),
        torch.arange(count),
        (),
        torch.tensor([config.model.input_size[::-1]] * count),
        (count, count),
    )

"""Contestants of training: one optimiser step each, and the floor's as often as ours looks."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramstrans.bench.ground import Ground
from ramstrans.bench.timing import Contestant
from ramstrans.bench.twin import KeepingTwin
from ramstrans.data.loading.dataset import Batch
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.evaluation.predict import autocast
from ramstrans.training.optim import build_optimizer
from ramstrans.training.step import build_train_step

NUM_STEPS = 1_000_000
"""Of the schedule: more than are ever taken."""


def our_step(ground: Ground) -> Contestant:
    """The training loop's own step, from uint8 images on."""
    case, model = ground.case, ground.model().train()
    model.backbone.use_fused_attention(ground.fused)
    stepper = build_train_step(model, ground.run_config.training, ground.accelerator, NUM_STEPS)
    ground.ready(stepper.look)
    pixels = ground.images().mul(64).add(128).clamp(0, 255).byte()
    labels, side = ground.labels(), case.image_size
    sizes = torch.full((case.batch_size, 2), side)
    batch = Batch(pixels, None, labels, torch.arange(case.batch_size), (), sizes, (len(labels), len(labels)))
    return Contestant(partial(stepper.step, batch, Preprocessing(side, (side, side))), case.batch_size)


def floor_step(ground: Ground) -> Contestant:
    """As many training steps of the plain ViT as ours looks, with the attention that ours takes."""
    vit = ground.ready(ground.vit().train())
    for block in vit.blocks:
        block.attn.fused_attn = ground.fused
    count = ground.case.model_config().num_scales
    return Contestant(stepping(ground, vit, lambda images: [vit(images)], count), ground.case.batch_size)


def twin_step(ground: Ground) -> Contestant:
    """One step down the sum of both losses, matrices and activations of both looks kept."""
    module = ground.ready(KeepingTwin(ground.model()).train())

    def forward(images: Tensor) -> list[Tensor]:
        return [scale.logits for scale in module(images).scales]

    return Contestant(stepping(ground, module, forward, 1), ground.case.batch_size)


def stepping(
    ground: Ground, module: nn.Module, forward: Callable[[Tensor], Sequence[Tensor]], count: int
) -> Callable[[], None]:
    """A call that takes optimiser steps: forward, cross-entropy, backward, clip, step.

    Args:
        ground: Of the case.
        module: Whose weights change.
        forward: Images -> logits, one a loss.
        count: Steps a call.
    """
    config = ground.run_config.training
    optimizer = build_optimizer(module, config)
    images, labels = ground.images(), ground.labels()

    def step() -> None:
        with autocast(ground.device, config.precision):
            logits = forward(images)
        loss = torch.stack([F.cross_entropy(one.float(), labels) for one in logits]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), config.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()

    def run() -> None:
        for _ in range(count):
            step()

    return run

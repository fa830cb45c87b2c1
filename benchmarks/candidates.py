"""What is compared. In each case, all have equal weights, equal images and the same kind of attention.

ramstrans     what `ramstrans predict` or `ramstrans train` computes: two scales, and the region between them
lower bound   timm's plain model, once per scale: no model with as many passes can be faster
plain         timm's plain model, once
reference     the same two scales with all attention matrices kept, see `ReferenceModel`
regions       only the step from saliency maps to the images of the next scale
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from benchmarks.cases import Case
from benchmarks.hardware import Hardware
from benchmarks.reference import ReferenceModel
from ramstrans.bench.timing import Candidate
from ramstrans.distributed import autocast
from ramstrans.models.regions import propose_regions
from ramstrans.models.zoom import zoom
from ramstrans.training import plan
from ramstrans.training.optim import build_optimizer

NUM_MAPS = 64
"""Images whose regions are proposed at once; forward passes may take fewer."""


def build_candidates(case: Case, device: torch.device, *, compiled: bool = False) -> dict[str, Candidate]:
    """The two candidates of a case's figure, ready to run."""
    hardware = Hardware(case, device, compiled)
    return {name: CANDIDATES[case.task][name](hardware) for name in case.figure}


def inference(hardware: Hardware, call: Callable[[Tensor], object]) -> Candidate:
    """A call on a batch of images in inference mode, in the case's precision."""
    images = hardware.images()

    def run() -> object:
        with torch.inference_mode(), autocast(hardware.device, hardware.case.precision):
            return call(images)

    return Candidate(run, len(images))


def ramstrans(hardware: Hardware) -> Candidate:
    """Both scales, without a region after the last."""
    model = hardware.prepared(hardware.model().eval())
    return inference(hardware, partial(model, last_region=False))


def plain(hardware: Hardware, passes: int = 1) -> Candidate:
    """Passes of the plain model."""
    vit = hardware.prepared(hardware.backbone().eval())
    return inference(hardware, lambda images: [vit(images) for _ in range(passes)])


def lower_bound(hardware: Hardware) -> Candidate:
    """As many plain passes as there are scales."""
    return plain(hardware, hardware.case.model_config().num_scales)


def reference(hardware: Hardware) -> Candidate:
    """Both scales with all matrices kept."""
    return inference(hardware, hardware.prepared(ReferenceModel(hardware.model()).eval()))


def regions(hardware: Hardware) -> Candidate:
    """From smooth random maps to the images of the next scale; `NUM_MAPS` of them whatever the batch."""
    images = hardware.images(NUM_MAPS)
    size = (hardware.case.image_size, hardware.case.image_size)
    rows, columns = hardware.backbone().patch_embed.grid_size
    noise = torch.rand(NUM_MAPS, 1, rows, columns, generator=torch.Generator().manual_seed(0))
    saliency = F.avg_pool2d(noise, 5, stride=1, padding=2)[:, 0].to(hardware.device)

    @torch.inference_mode()
    def run() -> Tensor:
        return zoom(images, propose_regions(saliency, size, threshold=1.0).boxes, size)

    return Candidate(run, NUM_MAPS)


def ramstrans_step(hardware: Hardware) -> Candidate:
    """The training loop's own step, from uint8 images on."""
    config = hardware.run_config
    step, preprocessing = plan.build_step(config, plan.Candidate(config.training.precision, False))
    hardware.prepared(step.forward_scale)
    batch = plan.random_batch(config, preprocessing, hardware.case.batch_size)
    return Candidate(partial(step.run, batch), hardware.case.batch_size)


def lower_bound_step(hardware: Hardware) -> Candidate:
    """As many training steps of the plain model as there are scales, with the same attention."""
    vit = hardware.prepared(hardware.backbone().train())
    for module in vit.blocks.modules() if isinstance(vit, VisionTransformer | Eva) else ():
        if hasattr(module, "fused_attn"):
            module.fused_attn = hardware.fused
    count = hardware.case.model_config().num_scales
    return Candidate(stepping(hardware, vit, lambda images: [vit(images)], count), hardware.case.batch_size)


def reference_step(hardware: Hardware) -> Candidate:
    """One step on the sum of both losses, matrices and activations of both scales kept."""
    module = hardware.prepared(ReferenceModel(hardware.model()).train())

    def forward(images: Tensor) -> list[Tensor]:
        return [scale.logits for scale in module(images).scales]

    return Candidate(stepping(hardware, module, forward, 1), hardware.case.batch_size)


def stepping(
    hardware: Hardware, module: nn.Module, forward: Callable[[Tensor], Sequence[Tensor]], count: int
) -> Callable[[], None]:
    """A call that takes optimiser steps: forward, cross-entropy, backward, clip, step.

    Args:
        hardware: Device and images.
        module: The module whose weights change.
        forward: Images -> logits, one tensor per loss.
        count: Steps per call.
    """
    config = hardware.run_config.training
    optimizer = build_optimizer(module, config)
    images, labels = hardware.images(), hardware.labels()

    def run() -> None:
        for _ in range(count):
            with autocast(hardware.device, config.precision):
                logits = forward(images)
            loss = torch.stack([F.cross_entropy(one.float(), labels) for one in logits]).sum()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), config.gradient_clip)
            optimizer.step()
            optimizer.zero_grad()

    return run


CANDIDATES: dict[str, dict[str, Callable[[Hardware], Candidate]]] = {
    "inference": {
        "ramstrans": ramstrans,
        "lower bound": lower_bound,
        "plain": plain,
        "reference": reference,
        "regions": regions,
    },
    "training": {
        "ramstrans": ramstrans_step,
        "lower bound": lower_bound_step,
        "reference": reference_step,
    },
}
"""By task and name."""

"""Who is measured. Of each case, all have equal weights, equal images and the same kind of attention.

ours      what `ramstrans predict` or `ramstrans train` computes, two looks and the region between
floor     timm's plain ViT as often as ours looks: nothing can be faster that looks so often
plain     timm's plain ViT once
twin      the same two looks with all attention matrices kept, see `KeepingTwin`
regions   only the step from saliency maps to the next look's images
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramstrans.bench.cases import Case
from ramstrans.bench.ground import Ground
from ramstrans.bench.steps import floor_step, our_step, twin_step
from ramstrans.bench.timing import Contestant
from ramstrans.bench.twin import KeepingTwin
from ramstrans.evaluation.predict import autocast
from ramstrans.models.regions import propose_regions
from ramstrans.models.zoom import zoom

NUM_MAPS = 64
"""Images whose regions are proposed at a time; the forward passes beside them may be of fewer."""

Build = Callable[[Ground], Contestant]


def build_contestants(case: Case, device: torch.device, *, compiled: bool = False) -> dict[str, Contestant]:
    """The two contestants of a case's figure, ready to run."""
    ground = Ground(case, device, compiled)
    return {name: CONTESTANTS[case.task][name](ground) for name in case.figure}


def without_gradients(ground: Ground, call: Callable[[Tensor], object]) -> Contestant:
    """A call on a batch of images in inference mode, in the case's precision."""
    images = ground.images()

    def run() -> object:
        with torch.inference_mode(), autocast(ground.device, ground.case.precision):
            return call(images)

    return Contestant(run, len(images))


def ours(ground: Ground) -> Contestant:
    """Both looks, a region between them, and none after."""
    model = ground.ready(ground.model().eval())
    return without_gradients(ground, partial(model, last_region=False))


def plain(ground: Ground) -> Contestant:
    """One plain pass."""
    return without_gradients(ground, ground.ready(ground.vit().eval()))


def floor(ground: Ground) -> Contestant:
    """As many plain passes as ours looks."""
    vit = ground.ready(ground.vit().eval())
    return without_gradients(ground, partial(_passes, vit, ground.case.model_config().num_scales))


def _passes(vit: nn.Module, count: int, images: Tensor) -> None:
    for _ in range(count):
        vit(images)


def twin(ground: Ground) -> Contestant:
    """Both looks with all matrices kept."""
    return without_gradients(ground, ground.ready(KeepingTwin(ground.model()).eval()))


def regions(ground: Ground) -> Contestant:
    """From smooth random maps to the next look's images; `NUM_MAPS` of them whatever the case's batch."""
    images = ground.images(NUM_MAPS)
    height, width = images.shape[2:]
    rows, columns = ground.vit().patch_embed.grid_size
    noise = torch.rand(NUM_MAPS, 1, rows, columns, generator=torch.Generator().manual_seed(0))
    saliency = F.avg_pool2d(noise, 5, stride=1, padding=2)[:, 0].to(ground.device)

    @torch.inference_mode()
    def run() -> Tensor:
        return zoom(images, propose_regions(saliency, (height, width), threshold=1.0).boxes, (height, width))

    return Contestant(run, NUM_MAPS)


CONTESTANTS: dict[str, dict[str, Build]] = {
    "inference": {
        "ours": ours,
        "floor": floor,
        "plain": plain,
        "twin": twin,
        "regions": regions,
    },
    "training": {"ours": our_step, "floor": floor_step, "twin": twin_step},
}
"""By task and name."""

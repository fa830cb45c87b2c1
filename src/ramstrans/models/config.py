"""Options of the model; saved beside its weights."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ramstrans.errors import ConfigError
from ramstrans.options import (
    AT_LEAST_0,
    FROM_0_BELOW_1,
    FROM_0_TO_1,
    Bound,
    check_bounds,
    check_names,
    warn_ignored,
)

THRESHOLDS = (1.2, 1.3)
"""eta of the paper's released set-up: for the first region, and for every later one."""

BOUNDS = {
    "num_classes": Bound("2 or more", lambda value: value >= 2),
    "num_scales": Bound("1 (the plain backbone) or more", lambda value: value >= 1),
    "saliency_layers": Bound("1 or more", lambda value: value >= 1),
    "num_tokens": Bound("1 or more", lambda value: value >= 1),
    "min_region": FROM_0_TO_1,
    "max_aspect": Bound("a ratio of 1 or more", lambda value: value >= 1),
    "zoom_margin": AT_LEAST_0,
    "saliency_blur": AT_LEAST_0,
    "dropout": FROM_0_BELOW_1,
    "drop_path": FROM_0_BELOW_1,
}


Component = Literal["count", "saliency", "soft"]
"""What makes a component the largest, the number of its patches or their saliency; `soft`: none is chosen."""

Placement = Literal["found", "centre", "whole", "random", "given"]
"""Where a region lies: where it was found, or, to see what that is worth, elsewhere."""

MethodName = Literal["plain", "rams", "transfg", "ffvt", "glsim", "calcrop"]
"""How a model looks at an image; see `models/methods`."""

ONE_SCALE: tuple[MethodName, ...] = ("plain", "transfg", "ffvt", "glsim")
"""Methods with one prediction for each image, so that there is one scale to train and to report."""

OVERLAP = 12
"""Distance of neighbouring patches in TransFG, in pixels."""

ClassTokens = Literal["joint", "separate", "shared"]
"""How scales differ: all their class tokens in every pass, one token per pass, or not at all."""

SaliencyName = Literal["auto", "rollout", "class_attention", "pool_attention", "cosine", "cam"]
"""What regions are proposed from; see `models/saliency`."""

ZoomSource = Literal["input", "full", "native"]
"""What regions are cut from."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything that determines a model except the values of its weights.

    Attributes:
        backbone: Name of an image classifier of timm, e.g. `vit_base_patch16_224`, `convnext_tiny` or
            `vit_small_patch16_dinov3`.
        num_classes: Number of classes, at least 2; None: as many as the data set has.
        image_size: Side of the input in pixels, or `[height, width]`.
        region_size: Side in pixels that later scales see their region at, or `[height, width]`; position
            embeddings are resampled. None: `image_size`, as in the paper.
        num_scales: Number of scales; 1 is the plain backbone. Always 1 for `plain` and the peers.
        method: `rams` (RAMS-Trans); `plain`: one look; `transfg`, `ffvt`, `glsim`: peers; `calcrop`: crops by
            attention in training alone, one look in evaluation.
        weights: `timm` for the backbone's pretrained weights from timm's hub, the path of a
            `.safetensors`, `.pth` or Google `.npz` file, a run folder or `hf://user/name`, or None for random
            ones.
        global_pool: How the backbone pools what its classifier reads, e.g. `token` or `avg`; None: as timm.
        class_tokens: `joint`: every scale's token is present in every pass (the paper's equation);
            `separate`: only token s enters pass s (the paper's figure); `shared`: all scales have the same
            one, or none. None: `joint` where the backbone is read at a class token, else `shared`.
        saliency: What regions are proposed from: `rollout` of attention (the paper), `class_attention` of the
            last layer, `pool_attention` (a rollout from the query that pools), `cosine` of the pooled vector
            and each location, or `cam` (class activation map). `auto`: rollout where every layer is
            attention among all tokens, else cam where it is exact, else cosine.
        saliency_layers: Of how many of the last layers attention is rolled out; None: all, as in the paper.
        saliency_rows: `all`: mean over all query rows of the rollout; `class`: the class token's row.
        saliency_mirrored: Whether a scale's saliency is the mean of that of what it saw and of its mirror
            image, put back: a pass more for each region, in training too.
        saliency_blur: Standard deviation, in locations, of a Gaussian that smooths saliency before the
            threshold; 0 is off, as in the paper.
        thresholds: eta, the multiple of the mean saliency above which a patch stands out; one for
            each region, `num_scales` of them. None: 1.2 for the first and 1.3 for later ones.
        component: Which patches that stand out become the region: the connected ones that are most by
            `count` (the paper), or have the largest sum of `saliency`; `soft`: all of them, each by how far
            it is above the threshold, in a box by their mean position and spread.
        min_region: Least side of a region, as a share of what its scale saw: smaller ones grow around their
            centre. 0 is off, as in the paper.
        max_aspect: Largest ratio of a region's longer to its shorter side, 1 or more, in pixels of what its
            scale saw: longer ones grow in width. None: any, as in the paper, so that crops are stretched; 1:
            a square around it, so that a square crop keeps the proportions of what its scale saw.
        region_placement: Where a region lies in what its scale saw. `found`: where the saliency is; four
            controls: `centre`: a box of the same sides in the centre; `random`: anywhere; `whole`: all of it,
            looked at again; `given`: the true box, for data sets that have boxes.
        zoom_source: What regions are cut from. `input`: the image that the model saw; `full`: the same at
            the resolution of `data.crop`; `native`: the photograph's own pixels, see `data.zoom_pixels`.
        zoom_margin: Margin around the box in the crop, as a share of its sides, e.g. 0.1; 0 in the paper.
        patch_stride: Distance between neighbouring patches in pixels; None: the patch size (no overlap), but
            12 for `transfg`, as in its paper.
        num_tokens: Tokens that are selected: in each layer by `ffvt`, for the crop by `glsim`; None: 12, 8.
        backbone_options: Further arguments for `timm.create_model`, e.g. `{depth: 6}`.
        dropout: Dropout rate on the embedded tokens and in each MLP and attention projection.
        drop_path: Stochastic depth rate of the last block, growing linearly from 0.
        mean: Mean of red, green and blue that the weights expect, for pixels in [0, 1]; None: timm's value.
        std: Standard deviation of red, green and blue, as for `mean`.
        multi_label: Whether an image may have any number of the classes: a sigmoid for each instead of one
            softmax over all. `data.multi_label` sets it.
    """

    backbone: str = "vit_base_patch16_224"
    num_classes: int | None = None
    image_size: int | tuple[int, int] = 224
    region_size: int | tuple[int, int] | None = None
    num_scales: int = 2
    method: MethodName = "rams"
    weights: str | Path | None = None
    global_pool: str | None = None
    class_tokens: ClassTokens | None = None
    saliency: SaliencyName = "auto"
    saliency_layers: int | None = None
    saliency_rows: Literal["all", "class"] = "all"
    saliency_mirrored: bool = False
    saliency_blur: float = 0.0
    thresholds: tuple[float, ...] | None = None
    component: Component = "count"
    min_region: float = 0.0
    max_aspect: float | None = None
    region_placement: Placement = "found"
    zoom_source: ZoomSource = "input"
    zoom_margin: float = 0.0
    patch_stride: int | None = None
    num_tokens: int | None = None
    backbone_options: dict[str, Any] = field(default_factory=dict)
    dropout: float = 0.0
    drop_path: float = 0.0
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    multi_label: bool = False

    def __post_init__(self) -> None:
        check_names("model.", self)
        check_bounds("model", self, BOUNDS)
        self._settle_method()
        warn_ignored("model", self, self._needs())
        if self.thresholds is not None and len(self.thresholds) != self.num_scales:
            raise ConfigError(
                f"model.thresholds has {len(self.thresholds)} values; "
                f"give one for each of the {self.num_scales} scales"
            )
        if not all(0 < threshold < math.inf for threshold in self.thresholds or ()):
            raise ConfigError(f"model.thresholds is {self.thresholds}; give numbers above 0, e.g. [1.2, 1.3]")
        for name, (height, width) in (("image_size", self.input_size), ("region_size", self.scale_sizes[-1])):
            if min(height, width) < 1:
                raise ConfigError(f"model.{name} is {getattr(self, name)}; give pixels, 1 or more")
        if self.mean is not None and not all(map(math.isfinite, self.mean)):
            raise ConfigError(f"model.mean is {self.mean}; give one number each for red, green and blue")
        if self.std is not None and not all(math.isfinite(std) and std > 0 for std in self.std):
            raise ConfigError(f"model.std is {self.std}; give a number above 0 each for red, green and blue")

    def _settle_method(self) -> None:
        """Fill in what follows from the method; refuse what does not go with it."""
        if self.method in ONE_SCALE:
            if self.num_scales > 2:  # the default may stand beside any method
                raise ConfigError(
                    f"model.num_scales is {self.num_scales}; {self.method} has one scale: leave it out"
                )
            object.__setattr__(self, "num_scales", 1)
        if self.method == "transfg" and self.patch_stride is None:
            object.__setattr__(self, "patch_stride", OVERLAP)
        if self.method == "calcrop":
            if self.class_tokens not in (None, "shared"):
                raise ConfigError(
                    f"model.class_tokens is {self.class_tokens}; calcrop trains the pass of the image itself "
                    "by its crops, so that all views share one token: leave it out"
                )
            object.__setattr__(self, "class_tokens", "shared")
        if self.method == "glsim" and self.region_placement in ("random", "given"):
            raise ConfigError(
                f"model.region_placement {self.region_placement} goes with the methods rams and calcrop; "
                "for glsim give found, centre or whole"
            )

    def _needs(self) -> dict[str, tuple[bool, str]]:
        """Options that only some methods read: whether this one does, and which do."""
        by_saliency = (self.method in ("rams", "plain", "calcrop"), "model.method rams or calcrop")
        rolled = ("auto", "rollout", "pool_attention")
        of_rollout, of_class_row = self.saliency in rolled, self.saliency in rolled[:2]
        return {
            **dict.fromkeys(("saliency", "saliency_mirrored"), by_saliency),
            "saliency_layers": (by_saliency[0] and of_rollout, "a rollout: model.saliency auto or rollout"),
            "saliency_rows": (by_saliency[0] and of_class_row, "a rollout: model.saliency auto or rollout"),
            "region_size": (self.num_scales > 1, "later scales: model.num_scales 2 or more"),
            **dict.fromkeys(
                ("thresholds", "component", "saliency_blur"), (self.method != "glsim", "model.method rams")
            ),
            "region_placement": (self.method in ("rams", "calcrop", "glsim"), "model.method rams"),
            "num_tokens": (self.method in ("ffvt", "glsim"), "model.method ffvt or glsim"),
        }

    @property
    def input_size(self) -> tuple[int, int]:
        """`(height, width)` of the input in pixels."""
        return _both_sides(self.image_size)

    @property
    def scale_sizes(self) -> tuple[tuple[int, int], ...]:
        """`(height, width)` in pixels of the input of each scale."""
        later = self.input_size if self.region_size is None else _both_sides(self.region_size)
        return (self.input_size, *(later,) * (self.num_scales - 1))

    @property
    def look_sizes(self) -> tuple[tuple[int, int], ...]:
        """`(height, width)` in pixels of each look in evaluation."""
        once = self.scale_sizes[:1]
        return {"calcrop": once, "glsim": once * 2}.get(self.method, self.scale_sizes)

    @property
    def needs_high_res(self) -> bool:
        """Whether regions are cut from another image than the input."""
        return self.zoom_source != "input" and (self.num_scales > 1 or self.method == "glsim")

    @property
    def needs_boxes(self) -> bool:
        """Whether the true boxes are looked at, in training at least."""
        return self.region_placement == "given" and self.num_scales > 1

    @property
    def region_thresholds(self) -> tuple[float, ...]:
        """The threshold eta of each scale."""
        first, later = THRESHOLDS
        return self.thresholds or (first,) + (later,) * (self.num_scales - 1)


def _both_sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """`(height, width)` of a size that may be one side of a square."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width

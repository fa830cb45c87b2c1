"""The whole of a prediction as one graph: from the pixels of a crop to fused probabilities, any batch."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ramstrans.calibration.fitted import Calibration
from ramstrans.data.preprocessing import Size
from ramstrans.errors import UsageError
from ramstrans.export.runner import OUTPUTS, UNKNOWN_SCORE
from ramstrans.export.standalone import pixels_size
from ramstrans.export.unknown import UnknownScore
from ramstrans.models.attention import ExplicitAttention
from ramstrans.models.methods.method import Method
from ramstrans.models.zoom import zoom_by_products
from ramstrans.saved.metadata import ModelMetadata


class Answers(NamedTuple):
    """What a graph gives for B images, S scales and L looks; by name, since a single look has no boxes.

    L is S, but for GLSim, whose two looks give one answer.

    Attributes:
        probabilities: (B, num_classes) float32, fused.
        scale_probabilities: (S, B, num_classes) float32.
        boxes: (L - 1, B, 4) float32, what each later look saw, half-open `(x0, y0, x1, y1)` in the input's
            pixels. None with one look.
        found: (L - 1, B) bool, False where nothing stood out and the box is all that the look before saw.
        saliency: (B, h, w) float32 of the first scale, non-negative.
        unknown_score: (B,) float32, high for images of no known class. None if the model is not calibrated
            to tell them.
    """

    probabilities: Tensor
    scale_probabilities: Tensor
    boxes: Tensor | None = None
    found: Tensor | None = None
    saliency: Tensor | None = None
    unknown_score: Tensor | None = None


class Graph(nn.Module):
    """A model with what comes before and after it: resizing to its input, normalisation, fusing.

    Args:
        model: In evaluation mode, on the CPU.
        metadata: What it was saved with.
        calibration: Of as many scales as the model has; None: it is not calibrated.
        by_products: Regions are cut out by products of matrices, which any runtime computes alike.

    Raises:
        UsageError: It cannot be one graph; the message says why, and what to do.
    """

    def __init__(
        self,
        model: Method,
        metadata: ModelMetadata,
        *,
        calibration: Calibration | None = None,
        by_products: bool = False,
    ) -> None:
        super().__init__()
        check_exportable(model)
        self.model = model.eval()
        if by_products:
            self.model = copy.copy(model)  # the same weights
            self.model.cut = zoom_by_products
        self.shrink = Shrink(pixels_size(metadata.preprocessing), model.image_size)
        self.calibration = calibration
        self.unknown = None
        if calibration is not None and (rule := calibration.fused[-1].unknown) is not None:
            self.unknown = UnknownScore(rule, calibration.arrays)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs that this model has."""
        names = OUTPUTS if self.model.num_looks > 1 else OUTPUTS[:2]
        return names if self.unknown is None else (*names, UNKNOWN_SCORE)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, height, width) uint8 at the crop's size -> the outputs, see `Answers`."""
        num_regions = self.model.num_looks - 1
        pixels = pixels.float()
        high_res = pixels if self.model.needs_high_res else None
        # with position biases the fused kernel has a memory layout at which ONNX's exporter fails
        with ExplicitAttention(only_biased=True):
            inputs = self.model.normalize(self.shrink(pixels), high_res)
            output = self.model(*inputs, last_region=num_regions == self.model.num_scales)
        fused, by_scale = output.fused, output.probabilities
        further: tuple[Tensor, ...] = ()
        if self.calibration is not None:
            of_scales = zip(by_scale, self.calibration.scales, strict=True)
            by_scale = torch.stack([tempered(*one) for one in of_scales])
            fused = tempered(fused, self.calibration.temperatures[-1])
        if self.unknown is not None:
            logits, features = zip(*((scale.logits, scale.feature) for scale in output.scales), strict=True)
            further = (self.unknown(fused, logits, features),)
        if not num_regions:
            return fused, by_scale, *further
        height, width = self.model.image_size
        ratio = pixels.new_tensor([pixels.shape[3] / width, pixels.shape[2] / height]).repeat(2)
        of_scales = output.scales[:num_regions]
        boxes = torch.stack([scale.boxes * ratio for scale in of_scales])
        found = torch.stack([scale.has_region for scale in of_scales])
        return fused, by_scale, boxes, found, output.scales[0].saliency, *further


def tempered(probabilities: Tensor, temperature: float) -> Tensor:
    """Probabilities (..., C) at a temperature, see `calibration.temperature`."""
    log_p = probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()
    return (log_p / temperature).softmax(dim=-1)


def check_exportable(model: Method) -> None:
    """Refuse what one graph of fixed sizes cannot do.

    Raises:
        UsageError: Regions are cut from images of several sizes, or from boxes that are given.
    """
    if model.zoom_source == "native" and model.num_scales > 1:
        raise UsageError(
            "model.zoom_source is native: regions are cut from photographs of any size, and a graph has "
            "inputs of one size; train with model.zoom_source full, or export the first scale alone by "
            "--num_scales 1"
        )
    if model.needs_boxes:
        raise UsageError(
            "model.region_placement is given: this model looks at the true boxes, which new photographs have "
            "not; export a model with model.region_placement found"
        )


class Shrink(nn.Module):
    """Resize pixels in 0..255 to a size, bilinearly with antialiasing, as whole numbers, as Pillow does.

    Along each side every output is a fixed weighted mean of inputs, so that a resize is two products of
    matrices; columns first, and both are rounded to grey levels.

    >>> Shrink((1, 4), (1, 2))(torch.tensor([[[[0.0, 10.0, 20.0, 30.0]]]]))
    tensor([[[[ 7., 23.]]]])
    """

    def __init__(self, size: Size, new_size: Size) -> None:
        super().__init__()
        self.is_same = tuple(size) == tuple(new_size)
        self.rows: Tensor
        self.columns: Tensor
        self.register_buffer("rows", resize_weights(size[0], new_size[0]).T.contiguous(), persistent=False)
        self.register_buffer("columns", resize_weights(size[1], new_size[1]).T.contiguous(), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, *new_size)."""
        if self.is_same:
            return pixels
        across = torch.floor(pixels @ self.columns + 0.5).clamp(0, 255)
        # constants on the right: NNCF fails at a product with one on the left to which a constant is added
        return torch.floor((across.mT @ self.rows).mT + 0.5).clamp(0, 255)


def resize_weights(length: int, new_length: int) -> Tensor:
    """(new_length, length) float32 weights of a bilinear resize with antialiasing; each row sums to 1.

    The triangle is as wide as an output pixel where the image shrinks.

    >>> resize_weights(4, 2)
    tensor([[0.4286, 0.4286, 0.1429, 0.0000],
            [0.0000, 0.1429, 0.4286, 0.4286]])
    """
    step = length / new_length
    support = max(step, 1.0)
    centres = (torch.arange(new_length, dtype=torch.float64) + 0.5) * step
    first = (centres - support + 0.5).floor().clamp(min=0)[:, None]
    last = (centres + support + 0.5).floor().clamp(max=length)[:, None]
    inputs = torch.arange(length, dtype=torch.float64)
    weights = (1 - (inputs + 0.5 - centres[:, None]).abs() / support).clamp(min=0)
    weights = torch.where((inputs >= first) & (inputs < last), weights, 0)
    return (weights / weights.sum(dim=1, keepdim=True)).float()

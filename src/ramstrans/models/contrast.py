"""Why one class and not another: how much each location speaks for the one or the other.

With z the logits of a scale and delta = z_A - z_B, location i gets the derivative of delta by a factor a_i,
at 1, on everything that the model reads from there:

    m_i = d delta / d a_i = sum over channels of x_i * d delta / d x_i

Positive values speak for A, negative ones for B. A gradient of one logit that weights features is Grad-CAM
(https://arxiv.org/abs/1610.02391), which averages it over locations first; without the average the map is
exact where it can be (HiResCAM, https://arxiv.org/abs/2011.08891); "why A, rather than B" is asked by
https://arxiv.org/abs/2008.00178, of the difference of two logits by https://arxiv.org/abs/2501.11309.
What x is depends on how the model reads its locations:

    features    a head that pools locations: x are the last features. The scales of LayerNorms are held fixed
                (https://arxiv.org/abs/2202.07304): else a norm after the pooling, which undoes any factor on
                the whole, leaves a map that sums to 0. Of a mean, perhaps a LayerNorm, and a linear layer the
                map is the exact decomposition: sum of m_i = delta minus what the biases give.
    values      a class token, or a query that pools by attention: x are the values of every attention layer,
                and the map is the sum over layers. Attention weights are held fixed (same paper): what is
                asked is what was read, not where was looked. Of models that select patches for their last
                layer (TransFG, FFVT) that layer is left out.

The last features of a ViT's patches say nothing about its class token, and gradient times the tokens that
enter its last block had the wrong sign where it was tried: docs/features.md has the figures.
"""

import threading
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ramstrans.errors import ConfigError
from ramstrans.models.attention import KeepValues
from ramstrans.models.encoder import Encoder, Features
from ramstrans.models.function_mode import FunctionMode
from ramstrans.models.head import flat_locations
from ramstrans.models.methods.base import HighRes, Output, Stage
from ramstrans.models.methods.method import Method


class Contrast(NamedTuple):
    """Where the difference of two logits of one scale comes from, for B images.

    Attributes:
        maps: (B, h, w) float32, over the locations of what the scale saw: positive for the first class,
            negative for the second.
        difference: (B,) float32, the first logit minus the second.
    """

    maps: Tensor
    difference: Tensor


def contrasts(
    model: Method,
    images: Tensor,
    high_res: HighRes | None,
    output: Output,
    first: Tensor,
    second: Tensor,
) -> tuple[Contrast, ...]:
    """Compare two classes at every scale, on the regions of a pass that was made before.

    Logits are computed again, in float32. Nothing is stored on the model, so that other threads may use it.

    Args:
        model: In eval mode; not one that looks at given boxes.
        images: (B, 3, H, W), as `output` was computed from.
        high_res: As `images`.
        output: With the saliency of every scale (`last_region`).
        first: (B,) int64, the class of positive values.
        second: (B,) int64, that of negative ones.

    Returns:
        One for each scale. Where one stage has several looks (GLSim), of the first look.

    Raises:
        ConfigError: The model reads its locations in no way that is known.
    """
    assert not model.training, "as predictions are made"
    found: list[Contrast] = []

    def compute(images: Tensor, scale: int, crop_box: Tensor, *, with_region: bool, **more: Any) -> Stage:  # noqa: ANN401, ARG001
        stage = output.scales[scale]
        assert stage.saliency is not None, "of every scale"
        rows, columns = stage.saliency.shape[1:]
        found.append(_of_scale(model, images, scale, crop_box, (rows, columns), (first, second), more))
        return stage

    with torch.no_grad():
        for _ in model.stages(images, high_res, last_region=True, forward_scale=compute):
            pass
    return tuple(found)


def reads_by_attention(encoder: Encoder) -> bool:
    """Whether the classifier sees locations by attention alone: of a token, or of a pooling query."""
    reads_token = getattr(encoder.model, "global_pool", None) == "token"
    return reads_token or encoder.anatomy.pools_by_attention


def _of_scale(
    model: Method,
    images: Tensor,
    scale: int,
    crop_box: Tensor,
    grid: tuple[int, int],
    classes: tuple[Tensor, Tensor],
    more: dict[str, Any],
) -> Contrast:
    """The contrast of one scale, which has this grid of locations."""
    images = images.detach().float().clone().requires_grad_()
    values: list[Tensor] = []
    by_attention, seen = reads_by_attention(model.encoder), _Seen(model.encoder)
    mode = KeepValues(values) if by_attention else FixedScales()
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False), seen, mode:
        stage = model.forward_scale(
            images, scale, crop_box, with_region=False, explicit_attention=False, **more
        )
        first, second = (stage.logits.gather(1, one[:, None].to(images.device))[:, 0] for one in classes)
        difference = first - second
        count = grid[0] * grid[1]
        if by_attention:
            num_looks = model.num_looks if model.num_scales == 1 else 1
            values = _of_locations(values, count, model.encoder.anatomy.num_prefix)
            products = _times_gradient(difference, values[: len(values) // num_looks])
            parts = torch.stack([one.sum(dim=(1, 3))[:, -count:] for one in products]).sum(dim=0)
        else:
            features = seen.features[0]
            (whole,) = _times_gradient(difference, [features.whole])
            parts = flat_locations(whole, model.encoder.anatomy.layout, features.num_prefix).sum(dim=2)
    return Contrast(parts.detach().float().reshape(-1, *grid), difference.detach().float())


def _of_locations(values: list[Tensor], count: int, num_prefix: int) -> list[Tensor]:
    """The values (B, heads, N, d) of attention among all locations, perhaps with tokens before them.

    Raises:
        ConfigError: There are none.
    """
    found = [one for one in values if one.ndim == 4 and 0 <= one.shape[2] - count <= num_prefix]
    if not found:
        raise ConfigError(
            "a contrast of two classes needs a model that pools its locations, or reads all of them by "
            "attention, and this backbone does neither; leave --against out"
        )
    return found


def _times_gradient(difference: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """Each tensor times its gradient; without those that the difference does not depend on."""
    gradients = torch.autograd.grad(difference.sum(), tensors, allow_unused=True)
    return [
        tensor.detach() * gradient
        for tensor, gradient in zip(tensors, gradients, strict=True)
        if gradient is not None
    ]


class _Seen:
    """The features that an encoder gives to this thread, in order."""

    def __init__(self, encoder: Encoder) -> None:
        self.features: list[Features] = []
        self._encoder, self._thread = encoder, threading.get_ident()

    def __enter__(self) -> None:
        self._hook = self._encoder.register_forward_hook(self._keep)

    def __exit__(self, *_error: object) -> None:
        self._hook.remove()

    def _keep(self, _encoder: torch.nn.Module, _images: Any, features: Features) -> None:  # noqa: ANN401
        if threading.get_ident() == self._thread and features.whole.requires_grad:
            self.features.append(features)


class FixedScales(FunctionMode):
    """Let no gradient flow through the scale of a LayerNorm, only through what it scales.

    >>> x = torch.tensor([[1.0, 3.0]], requires_grad=True)
    >>> with FixedScales():
    ...     F.layer_norm(x, (2,))[0, 1].backward()
    >>> x.grad.round(decimals=4).tolist()  # of (x_2 - mean) / 1; without the mode 0
    [[-0.5, 0.5]]
    """

    function = staticmethod(F.layer_norm)

    def _replacement(
        self,
        values: Tensor,
        normalized_shape: tuple[int, ...],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        """`F.layer_norm`, whose scale is a constant to autograd."""
        axes = tuple(range(-len(normalized_shape), 0))
        scale = (values.detach().var(dim=axes, correction=0, keepdim=True) + eps).rsqrt()
        scaled = (values - values.mean(dim=axes, keepdim=True)) * scale
        scaled = scaled if weight is None else scaled * weight
        return scaled if bias is None else scaled + bias

"""The score of the unknown inside a graph: `calibration.scores` in torch, for what is fitted already."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ramstrans.calibration.fitted import UnknownRule
from ramstrans.calibration.scores import ARRAYS, NUM_NEIGHBORS, Arrays, arrays_of_scale

Tensors = dict[str, Tensor]
"""The arrays of one scale, as `Constants` has them."""


class UnknownScore(nn.Module):
    """How unlike an image is to all that was trained on, high for an unknown class; see `calibration.scores`.

    Args:
        rule: Which score of which scales.
        arrays: What it compares with, the arrays of a `Calibration`.
    """

    def __init__(self, rule: UnknownRule, arrays: Arrays) -> None:
        super().__init__()
        self.rule = rule
        names = ARRAYS.get(rule.score, ())
        self.constants = nn.ModuleList(
            Constants({name: arrays_of_scale(arrays, scale)[name] for name in names}) for scale in rule.scales
        )

    def forward(self, calibrated: Tensor, logits: Sequence[Tensor], features: Sequence[Tensor]) -> Tensor:
        """(B,) float32.

        Args:
            calibrated: (B, num_classes) the calibrated answer.
            logits: Of each scale of the model, (B, num_classes).
            features: Of each scale, (B, D).
        """
        if self.rule.score == "max_probability":
            return -calibrated.amax(dim=1)
        score = _SCORES[self.rule.score]
        each = [
            score(logits[scale - 1].float(), features[scale - 1].float(), dict(constants.named_buffers()))
            for scale, constants in zip(self.rule.scales, self.constants, strict=True)
        ]
        return torch.stack(each).mean(dim=0)


class Constants(nn.Module):
    """The arrays of one scale as constants of a graph, products with which are written `x @ constant`."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        if "neighbors" in tensors:
            tensors["neighbors"] = tensors["neighbors"].T.contiguous()
        if "means" in tensors:  # about the mean of all, where sums of squares lose the least
            centred = tensors["means"] - tensors["mean"] @ tensors["within"]
            tensors["means"] = centred.T.contiguous()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


def _max_logit(logits: Tensor, _features: Tensor, _of: Tensors) -> Tensor:
    return -logits.amax(dim=1)


def _energy(logits: Tensor, _features: Tensor, _of: Tensors) -> Tensor:
    return -logits.logsumexp(dim=1)


def _knn(_logits: Tensor, features: Tensor, of: Tensors) -> Tensor:
    cosines = functional.normalize(features, dim=1) @ of["neighbors"]
    kth = cosines.topk(min(NUM_NEIGHBORS, cosines.shape[1]), dim=1).values[:, -1]
    return (2 - 2 * kth).clamp(min=0).sqrt()


def _mahalanobis(_logits: Tensor, features: Tensor, of: Tensors) -> Tensor:
    centred = features - of["mean"]
    white = centred @ of["within"]
    to_classes = (of["means"] ** 2).sum(dim=0) - 2 * (white @ of["means"])
    to_all = ((centred @ of["overall"]) ** 2).sum(dim=1)
    return to_classes.amin(dim=1) + (white**2).sum(dim=1) - to_all


def _vim(logits: Tensor, features: Tensor, of: Tensors) -> Tensor:
    outside = ((features - of["origin"]) @ of["residual"]).square().sum(dim=1)
    return of["alpha"] * outside.sqrt() - logits.logsumexp(dim=1)


_SCORES: dict[str, Callable[[Tensor, Tensor, Tensors], Tensor]] = {
    "max_logit": _max_logit,
    "energy": _energy,
    "knn": _knn,
    "mahalanobis": _mahalanobis,
    "vim": _vim,
}

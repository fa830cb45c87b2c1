"""The validation split: what is measured on it, which of several candidates is better, how sure that is."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ramstrans.evaluation.metrics import FEW_IMAGES, classification_metrics, cross_entropy, wilson_interval
from ramstrans.plain import counted


def validation_row(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Cross-entropy and top-1 accuracy of each scale and of the fused probabilities, their mean.

    Args:
        probabilities: (S, N, C) float32, softmax of each scale's logits.
        labels: (N,) int64, the true classes.

    Returns:
        `loss_scales`, `loss_fused`, `top1_scales` and `top1_fused`, in percent, as in metrics.jsonl.
    """
    fused = probabilities.mean(axis=0)
    return {
        "loss_scales": [cross_entropy(scale, labels) for scale in probabilities],
        "loss_fused": cross_entropy(fused, labels),
        "top1_scales": [classification_metrics(scale, labels).top1 for scale in probabilities],
        "top1_fused": classification_metrics(fused, labels).top1,
    }


def rank(row: Mapping[str, Any]) -> tuple[float, float]:
    """How good a `validation_row` is: the higher accuracy wins; of equal ones, the lower loss.

    >>> rank({"top1_fused": 100.0, "loss_fused": 0.2}) > rank({"top1_fused": 100.0, "loss_fused": 0.3})
    True
    """
    return row["top1_fused"], -row["loss_fused"]


def describe(row: Mapping[str, Any]) -> str:
    """A `validation_row` in words; one scale is also the fused prediction.

    >>> describe({"loss_fused": 0.5, "top1_scales": [80.0], "top1_fused": 80.0})
    'validation loss 0.500, top-1 80.0 %'
    >>> describe({"loss_fused": 0.5, "top1_scales": [75.0, 80.0], "top1_fused": 82.5})
    'validation loss 0.500, top-1 75.0 / 80.0 / fused 82.5 %'
    """
    scales = " / ".join(f"{top1:.1f}" for top1 in row["top1_scales"])
    fused = f" / fused {row['top1_fused']:.1f}" if len(row["top1_scales"]) > 1 else ""
    return f"validation loss {row['loss_fused']:.3f}, top-1 {scales}{fused} %"


def choice_warnings(chosen: str, top1: float, num_images: int, otherwise: str) -> list[str]:
    """Say how sure a choice is that was made on few validation images; nothing if there were enough.

    Args:
        chosen: What was chosen, e.g. `epoch 4`.
        top1: Its accuracy on the validation split, in percent.
        num_images: Images of that split.
        otherwise: What happens without such images, e.g. `the last epoch is taken`.

    >>> choice_warnings("epoch 4", 100.0, 5, "the last epoch is taken")[0][:87]
    'epoch 4 was chosen on 5 validation images, of which it has 100.0 % right (95 % interval'
    >>> choice_warnings("epoch 4", 100.0, 50, "the last epoch is taken")
    []
    """
    if num_images >= FEW_IMAGES:
        return []
    images = counted(num_images, "validation image")
    low, high = wilson_interval(round(top1 * num_images / 100), num_images)
    return [
        f"{chosen} was chosen on {images}, of which it has {top1:.1f} % right (95 % interval {low:.1f} - "
        f"{high:.1f} %); another may be as good: hold out {FEW_IMAGES} images or more "
        f"(--data.val_fraction), or none, and {otherwise} (--data.val_fraction 0)"
    ]

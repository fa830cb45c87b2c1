"""The validation split: what is measured on it, which of several candidates is better, how sure that is."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ramstrans.evaluation.metrics import FEW_IMAGES, classification_metrics, cross_entropy, wilson_interval
from ramstrans.evaluation.multi_label import binary_cross_entropy, mean_average_precision
from ramstrans.plain import counted


def validation_row(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Cross-entropy and top-1 accuracy of each scale and of the fused probabilities, their mean.

    Args:
        probabilities: (S, N, C) float32, softmax of each scale's logits.
        labels: (N,) int64, the true classes; or (N, C) 0 and 1, the labels that each image has.

    Returns:
        `loss_scales`, `loss_fused`, `top1_scales` and `top1_fused`, in percent, as in metrics.jsonl; for
        images of several labels `map_scales` and `map_fused`, mean average precision, instead of top-1.
    """
    fused = probabilities.mean(axis=0)
    if labels.ndim == 2:
        truth = labels > 0
        return {
            "loss_scales": [binary_cross_entropy(scale, truth) for scale in probabilities],
            "loss_fused": binary_cross_entropy(fused, truth),
            "map_scales": [mean_average_precision(scale, truth) for scale in probabilities],
            "map_fused": mean_average_precision(fused, truth),
        }
    return {
        "loss_scales": [cross_entropy(scale, labels) for scale in probabilities],
        "loss_fused": cross_entropy(fused, labels),
        "top1_scales": [classification_metrics(scale, labels).top1 for scale in probabilities],
        "top1_fused": classification_metrics(fused, labels).top1,
    }


def rank(row: Mapping[str, Any]) -> tuple[float, float]:
    """How good a `validation_row` is: the higher accuracy, or mAP, wins; of equal ones, the lower loss.

    An mAP that is not defined, because no validation image has a label, counts as 0.

    >>> rank({"top1_fused": 100.0, "loss_fused": 0.2}) > rank({"top1_fused": 100.0, "loss_fused": 0.3})
    True
    """
    score = row[f"{metric_of(row)}_fused"]
    return 0.0 if math.isnan(score) else score, -row["loss_fused"]


def metric_of(row: Mapping[str, Any]) -> str:
    """What decides between rows: `top1`, or `map` where images may have several labels."""
    return "map" if "map_fused" in row else "top1"


def describe(row: Mapping[str, Any]) -> str:
    """A `validation_row` in words; one scale is also the fused prediction.

    >>> describe({"loss_fused": 0.5, "top1_scales": [80.0], "top1_fused": 80.0})
    'validation loss 0.500, top-1 80.0 %'
    >>> describe({"loss_fused": 0.5, "top1_scales": [75.0, 80.0], "top1_fused": 82.5})
    'validation loss 0.500, top-1 75.0 / 80.0 / fused 82.5 %'
    """
    metric = metric_of(row)
    values = row[f"{metric}_scales"]
    scales = " / ".join(f"{value:.1f}" for value in values)
    fused = f" / fused {row[f'{metric}_fused']:.1f}" if len(values) > 1 else ""
    name = {"top1": "top-1", "map": "mAP"}[metric]
    return f"validation loss {row['loss_fused']:.3f}, {name} {scales}{fused} %"


def choice_warnings(chosen: str, top1: float | None, num_images: int, otherwise: str) -> list[str]:
    """Say how sure a choice is that was made on few validation images; nothing if there were enough.

    Args:
        chosen: What was chosen, e.g. `epoch 4`.
        top1: Its accuracy on the validation split, in percent; None if it was chosen by mAP.
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
    right = ""
    if top1 is not None:
        low, high = wilson_interval(round(top1 * num_images / 100), num_images)
        right = f", of which it has {top1:.1f} % right (95 % interval {low:.1f} - {high:.1f} %)"
    return [
        f"{chosen} was chosen on {images}{right}; another may be as good: hold out {FEW_IMAGES} images or "
        f"more (--data.val_fraction), or none, and {otherwise} (--data.val_fraction 0)"
    ]

"""Labels that a model's predictions contradict: confident learning.

With `p_ij` the predicted probability of class j for image i, whose given label is `y_i`, the threshold of a
class is the model's mean confidence in it over the images labelled so, and an image confidently belongs to
the likeliest class that reaches its threshold (Northcutt et al. 2021, equations 1 and 2,
https://arxiv.org/abs/1911.00068):

    t_j = mean of p_ij over the images with y_i = j
    c_i = argmax of p_ij over the classes j with p_ij >= t_j

A label is an issue if `c_i` exists and is not `y_i`: the off-diagonal of the confident joint. A class that
the model finds hard has a low threshold, so its images are not reported for being hard.

The paper requires predictions on images that the model was not trained on. On training images the model
repeats the given labels, wrong ones too: fewer issues are found there, and they are weaker. Compute
thresholds for the two kinds separately.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ramstrans.data.audit.findings import Finding


def label_issues(
    probabilities: np.ndarray,
    labels: np.ndarray,
    paths: Sequence[Path],
    class_names: Sequence[str],
    *,
    is_seen: bool = False,
) -> list[Finding]:
    """Find images whose label the predictions contradict, by falling difference of the two confidences.

    Args:
        probabilities: (N, C), rows sum to 1, of all images that share thresholds.
        labels: (N,) the given classes.
        paths: The N image files.
        class_names: The C names, in label order.
        is_seen: Whether the model was trained on these images; each finding then says that it is weaker.
    """
    weaker = "; the model was trained on it, which makes this weaker" if is_seen else ""
    issues = []
    for index, suggested in ranked_issues(probabilities, labels):
        given = int(labels[index])
        sides = (
            f"{what} '{class_names[label]}' ({probabilities[index, label]:.0%})"
            for what, label in (("given", given), ("suggested", suggested))
        )
        issues.append(Finding("label issue", (paths[index],), ", ".join(sides) + weaker))
    return issues


def ranked_issues(probabilities: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    """Images whose label is an issue, with the class suggested, by falling difference of the confidences.

    >>> probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.85, 0.15]])
    >>> ranked_issues(probabilities, np.array([0, 0, 1, 1]))
    [(3, 0)]
    """
    confident = confident_classes(probabilities, labels)
    indices = np.flatnonzero((confident >= 0) & (confident != labels))
    given, suggested = probabilities[indices, labels[indices]], probabilities[indices, confident[indices]]
    order = indices[np.argsort(given - suggested, kind="stable")]
    return [(int(index), int(confident[index])) for index in order]


def confident_classes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) int64, the class `c_i` of each image, -1 for none; see the module docstring.

    Args:
        probabilities: (N, C), rows sum to 1.
        labels: (N,) the given classes.

    >>> probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.85, 0.15]])
    >>> confident_classes(probabilities, np.array([0, 0, 1, 1]))  # thresholds 0.8 and 0.475
    array([ 0, -1,  1,  0])
    """
    thresholds = class_thresholds(probabilities, labels)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    return np.where(confident.max(axis=1) >= 0, confident.argmax(axis=1), -1)


def class_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(C,) float64, the thresholds `t_j`; infinite for a class without images.

    Args:
        probabilities: (N, C) float32, rows sum to 1. Their sums are exact, so equal ones reach their mean.
        labels: (N,) the given classes.
    """
    num_classes = probabilities.shape[1]
    given = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    totals = np.bincount(labels, given, num_classes)
    counts = np.bincount(labels, minlength=num_classes)
    thresholds = np.full(num_classes, np.inf)
    np.divide(totals, counts, out=thresholds, where=counts > 0)
    return thresholds

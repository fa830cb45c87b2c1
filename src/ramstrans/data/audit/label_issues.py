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
from typing import NamedTuple

import numpy as np

from ramstrans.data.audit.findings import Finding


class LabelIssue(NamedTuple):
    """One label that is probably wrong.

    Attributes:
        path: The image file.
        given: Name of the class it is labelled as.
        suggested: Name of the class that the model predicts.
        confidence: Probability of `suggested`.
        given_confidence: Probability of `given`.
        is_seen: Whether the model was trained on this image, which makes the issue weaker.
    """

    path: Path
    given: str
    suggested: str
    confidence: float
    given_confidence: float
    is_seen: bool


class LabelIssues(NamedTuple):
    """The label issues of a data set.

    Attributes:
        issues: Those of images that the model was not trained on first, the most confident first.
        num_unseen: Readable images that the model was not trained on.
        num_seen: Readable images that it was trained on.
    """

    issues: list[LabelIssue]
    num_unseen: int
    num_seen: int

    def __str__(self) -> str:
        """One line: how many labels the model contradicts, of how many images.

        >>> str(LabelIssues([LabelIssue(Path("a.jpg"), "crow", "wren", 0.9, 0.1, False)], 7, 0))
        'the model contradicts 1 of 7 labels of images that it was not trained on'
        """
        num_seen = sum(issue.is_seen for issue in self.issues)
        num_unseen = len(self.issues) - num_seen
        unseen = f"{num_unseen} of {self.num_unseen} labels of images that it was not trained on"
        seen = f", and {num_seen} of {self.num_seen} of images that it was trained on"
        return f"the model contradicts {unseen}" + (seen if self.num_seen else "")


def label_issues(
    probabilities: np.ndarray,
    labels: np.ndarray,
    paths: Sequence[Path],
    class_names: Sequence[str],
    *,
    is_seen: bool = False,
) -> list[LabelIssue]:
    """Find images whose label the predictions contradict, by falling difference of the two confidences.

    Args:
        probabilities: (N, C), rows sum to 1, of all images that share thresholds.
        labels: (N,) the given classes.
        paths: The N image files.
        class_names: The C names, in label order.
        is_seen: Whether the model was trained on these images.
    """
    confident = confident_classes(probabilities, labels)
    issues = [
        LabelIssue(
            paths[index],
            class_names[labels[index]],
            class_names[confident[index]],
            float(probabilities[index, confident[index]]),
            float(probabilities[index, labels[index]]),
            is_seen,
        )
        for index in np.flatnonzero((confident >= 0) & (confident != labels)).tolist()
    ]
    return sorted(issues, key=lambda issue: issue.given_confidence - issue.confidence)


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


def to_finding(issue: LabelIssue) -> Finding:
    """Convert a label issue to a finding of an audit."""
    detail = (
        f"given '{issue.given}' ({issue.given_confidence:.0%}), "
        f"suggested '{issue.suggested}' ({issue.confidence:.0%})"
    )
    seen = "; the model was trained on it, which makes this weaker" if issue.is_seen else ""
    return Finding("label issue", (issue.path,), detail + seen)

"""What may be asked of a calibration; without NumPy, so that options are checked quickly."""

import math
from dataclasses import dataclass
from typing import Literal

from ramstrans.errors import ConfigError
from ramstrans.options import check_names

ScoreName = Literal["max_probability", "max_logit", "energy", "knn", "mahalanobis", "vim"]
"""How the unknown is told, see `calibration.scores`."""

SetMethod = Literal["lac", "aps", "raps"]
"""How prediction sets are made, see `calibration.conformal`."""


def check_rank_confidence(confidence: float | None) -> None:
    """Raise ConfigError unless one group of a rank at most can reach a confidence, and some can."""
    if confidence is not None and not 0.5 < confidence < 1:
        raise ConfigError(
            f"--rank_confidence is {confidence:g}; give more than 0.5, which one group of a rank at most can "
            "reach, and less than 1"
        )


def min_images(share: float) -> int:
    """The smallest number of images from which a score can be taken that a share of new ones keeps to.

    >>> min_images(0.95), min_images(0.9), min_images(0.99)
    (19, 9, 99)
    """
    return math.ceil(share / (1 - share) - 1e-9)


@dataclass(frozen=True)
class Wanted:
    """What is asked of a calibration.

    Attributes:
        score: How the unknown is told; `auto`: by the score that tells best.
        reject: Share of known images that may be rejected as unknown.
        coverage: Share of images whose prediction set is to have the true class.
        set_method: How prediction sets are made.
        per_class: Whether each class is to be covered, and not all of them on average.
    """

    score: ScoreName | Literal["auto"] = "auto"
    reject: float = 0.05
    coverage: float = 0.95
    set_method: SetMethod = "lac"
    per_class: bool = False

    def __post_init__(self) -> None:
        check_names("--", self)
        for name in ("reject", "coverage"):
            if not 0 < (share := getattr(self, name)) < 1:
                default = getattr(Wanted, name)
                raise ConfigError(f"--{name} is {share}; give a number in (0, 1), e.g. {default}")

    @property
    def min_images(self) -> int:
        """Held-out images that are needed at least."""
        return max(min_images(self.coverage), min_images(1 - self.reject))

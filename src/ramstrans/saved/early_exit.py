"""The early-exit threshold that was chosen for a model."""

from dataclasses import dataclass

from ramstrans.errors import ConfigError


@dataclass(frozen=True)
class EarlyExit:
    """A confidence at which images skip the remaining scales, and what it cost where it was chosen.

    Attributes:
        confidence: Threshold, above 0: an image exits once its highest probability, averaged over the
            scales it has passed, reaches it.
        chosen_on: Split that it was chosen on.
        num_images: Number of images of that split.
        top1_lost: Loss of top-1 accuracy there, in percentage points; negative for a gain.
        mean_scales_used: Mean number of scales per image there.
    """

    confidence: float
    chosen_on: str
    num_images: int
    top1_lost: float
    mean_scales_used: float

    def __post_init__(self) -> None:
        if not self.confidence > 0:
            raise ConfigError(
                f"the confidence of early exit is {self.confidence}; give more than 0, at most 1"
            )

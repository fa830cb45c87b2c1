"""What every saliency is: a function of the features, and the reason why a backbone cannot have it."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

from ramstrans.models.encoder import Encoder, Features

Rows = Literal["all", "class"]
"""Which query rows of the attention count: the mean of all, or the class token's."""


class Saliency(NamedTuple):
    """A way to see which locations of an image a model uses.

    Attributes:
        compute: `(features, encoder, rows)` -> (B, h, w) float32, non-negative.
        unfit: `(encoder, rows)` -> why a backbone cannot have it, as the end of a sentence about it; or None.
        uses: Whose queries and keys have to be recorded.
        of_present: `(features, encoder)` -> the same where an image may have several classes, if it is a map
            of one class: of all that the scale predicts. None: it is not.
    """

    compute: Callable[[Features, Encoder, Rows], Tensor]
    unfit: Callable[[Encoder, Rows], str | None]
    uses: Literal["all layers", "last layer", "none"] = "none"
    of_present: Callable[[Features, Encoder], Tensor] | None = None

    def num_layers(self, encoder: Encoder, limit: int | None = None) -> int:
        """Of how many of the last layers queries and keys have to be recorded.

        Args:
            encoder: The model.
            limit: `model.saliency_layers`; None: all layers.
        """
        if self.uses == "none":
            return 0
        available = encoder.anatomy.num_layers
        return 1 if self.uses == "last layer" else min(limit or available, available)

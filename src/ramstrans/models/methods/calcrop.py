"""Attention crops in training alone, and one look in evaluation.

The idea of CAL-NC (https://arxiv.org/abs/2605.18700): crops that attention proposes teach the backbone, which
then keeps most of what they gain without looking at any. Only this idea is taken from there: the crop is
that of RAMS-Trans, and neither CAL's attention heads nor its counterfactual loss are here. With x_1 the image
and x_s the enlarged region of x_{s-1} (`rams.py`), f the backbone with its head:

    training:    loss = sum over s of w_s CE(f(x_s), y)     w: training.loss_weights
    evaluation:  answer = softmax(f(x_1))
"""

from typing import Any

from ramstrans.models.encoder import Encoder
from ramstrans.models.methods.rams import RamsTrans


class CalCrop(RamsTrans):
    """Regions are cut out and enlarged in training, as further views of the image with the same label.

    The loss is the sum of the cross-entropies of the image and of its crops, weighted by
    `training.loss_weights`. All views share every weight, the class token too, so that the crops train the
    very pass that evaluation takes. That costs what the plain backbone costs; `limit_scales(2)` looks at the
    crop too, and is then `rams` with shared class tokens.
    """

    def __init__(self, encoder: Encoder, *args: Any, **options: Any) -> None:  # noqa: ANN401 - of Method
        super().__init__(encoder, *args, **options)
        self.limit_scales(1)

"""RAMS-Trans (https://arxiv.org/abs/2107.08192): look, roll attention out to a region, look at that again.

With A_l the attention of layer l, its K heads averaged (rows are queries and sum to 1; Eq. 4 to 8):

    G_l = (A_l + I) / 2                                     layer and residual
    g = G_L ... G_1                                         Eq. 9
    saliency_j = mean over all N rows i of g_ij             for each patch j; without class tokens
    mask_j = [saliency_j > eta * mean over patches]         eta 1.2
    box = that of the largest 8-connected component of the mask
    loss = sum over scales s of CE(logits_s, y);    answer = mean over s of softmax(logits_s)

The mean over rows and the value of eta are not in the paper; docs/method.md says what else differs. They are
computed in `models/saliency/rollout.py` (without g), `models/regions.py` and `training/losses.py`, the loop
over scales in `Method`; this is what a pass gives it.
"""

from typing import Any

import torch
from torch import Tensor

from ramstrans.models.encoder import Features
from ramstrans.models.methods.method import Method
from ramstrans.models.saliency import SALIENCIES, choose_saliency


class RamsTrans(Method):
    """Regions come from a saliency, by default the rollout of attention, and each look has its own logits.

    Trained by the sum of all scales' cross-entropies; the prediction is the mean of their probabilities.
    """

    def set_saliency(self, name: str) -> None:
        """See `Method.set_saliency`."""
        self.saliency_name, self.saliency_reason = choose_saliency(self.encoder, name, self.saliency_rows)

    def describe(self) -> list[str]:
        """See `Method.describe`."""
        lines = super().describe()
        if self.num_trained > 1:
            rows, columns = self.encoder.anatomy.grid
            lines.append(
                f"regions by {self.saliency_name} of {rows}x{columns} locations: {self.saliency_reason}"
            )
        return lines

    @property
    def num_recorded(self) -> int:
        """Layers whose queries and keys a pass that proposes a region has to keep."""
        return SALIENCIES[self.saliency_name].num_layers(self.encoder, self.saliency_layers)

    def encode(
        self, images: Tensor, scale: int, *, with_region: bool, explicit_attention: bool | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `Method.encode`."""
        num_layers = self.num_recorded if with_region else 0
        if explicit_attention is None:
            explicit_attention = self.encoder.is_explicit(images, num_layers)
        how: dict[str, Any] = {"num_layers": num_layers, "explicit_attention": explicit_attention}
        features = self.encoder(images, scale, **how)
        pooled = features.pooled.clone()  # a view would keep all tokens of the chunk
        if not with_region:
            return pooled, None
        saliency = self.saliency(features)
        if self.saliency_mirrored:
            with torch.no_grad():
                mirrored = self.saliency(self.encoder(images.flip(-1), scale, **how))
            saliency = (saliency + mirrored.flip(-1)) / 2
        return pooled, saliency

    def saliency(self, features: Features) -> Tensor:
        """(B, h, w) saliency of one scale's locations; of all predicted labels, if there may be several."""
        saliency = SALIENCIES[self.saliency_name]
        if self.multi_label and saliency.of_present is not None:
            return saliency.of_present(features, self.encoder)
        return saliency.compute(features, self.encoder, self.saliency_rows)

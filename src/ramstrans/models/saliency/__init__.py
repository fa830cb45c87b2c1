"""Which locations of an image a model uses: one way per file, chosen by name."""

from ramstrans.errors import ConfigError
from ramstrans.models.encoder import Encoder
from ramstrans.models.saliency import cam, class_attention, cosine, pool_attention, rollout
from ramstrans.models.saliency.base import Rows, Saliency

__all__ = ["AUTO", "SALIENCIES", "Rows", "Saliency", "choose_saliency"]

SALIENCIES: dict[str, Saliency] = {
    "rollout": rollout.SALIENCY,
    "class_attention": class_attention.SALIENCY,
    "pool_attention": pool_attention.SALIENCY,
    "cosine": cosine.SALIENCY,
    "cam": cam.SALIENCY,
}

AUTO = ("rollout", "cam", "cosine")
"""In the order of preference of `auto`."""


def choose_saliency(encoder: Encoder, asked: str = "auto", rows: Rows = "all") -> tuple[str, str]:
    """The name of a backbone's saliency, and the reason for it.

    Raises:
        ConfigError: The name is unknown, or the backbone cannot have it.
    """
    name = type(encoder.model).__name__
    if encoder.num_scales > 1 and encoder.anatomy.grid == (1, 1):
        raise ConfigError(
            f"the features of this {name} have one location, which tells no region; give a larger "
            "model.image_size, another model.backbone, or model.num_scales 1"
        )
    if asked != "auto":
        if asked not in SALIENCIES:
            raise ConfigError(f"model.saliency is '{asked}'; give auto, {', '.join(SALIENCIES)}")
        reason = SALIENCIES[asked].unfit(encoder, rows)
        if reason:
            possible = [other for other in SALIENCIES if not SALIENCIES[other].unfit(encoder, rows)]
            raise ConfigError(
                f"model.saliency is {asked}, which this {name} cannot have: {reason}; "
                f"give auto or {' or '.join(possible)}"
            )
        return asked, "as asked for"
    reasons: list[str] = []
    for saliency in AUTO:
        reason = SALIENCIES[saliency].unfit(encoder, rows)
        if reason is None:
            return saliency, "; ".join(reasons) or "every layer is attention among all tokens"
        reasons.append(f"no {saliency}: {reason}")
    raise AssertionError("any feature map has a cosine")

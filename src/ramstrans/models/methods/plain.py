"""The plain backbone: one look, fine-tuned by cross-entropy."""

from ramstrans.models.methods.rams import RamsTrans


class Plain(RamsTrans):
    """What RAMS-Trans is with one scale, by its own name: the same weights and the same logits.

    Its saliency serves pictures only.
    """

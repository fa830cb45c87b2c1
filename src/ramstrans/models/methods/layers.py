"""Names of a model's parameters by layer, as timm's optimisers ask for them."""

from typing import Any

from torch import nn

from ramstrans.errors import ConfigError
from ramstrans.models.encoder import Encoder


class LayerNames(nn.Module):
    """A module whose backbone is `encoder.model`; what else it has counts with the head."""

    encoder: Encoder

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are not decayed, as timm's optimisers ask for them."""
        names: set[str] = getattr(self.encoder.model, "no_weight_decay", set)()
        return {f"encoder.model.{name}" for name in names}

    def group_matcher(self, coarse: bool = False) -> Any:  # noqa: ANN401
        """Patterns of parameter names by layer, or a function of them, as timm's layer-wise rates ask for.

        Raises:
            ConfigError: timm does not know the layers of this model.
        """
        if not hasattr(self.encoder.model, "group_matcher"):
            name = type(self.encoder.model).__name__
            raise ConfigError(f"training.layer_decay: timm does not know the layers of a {name}; set it to 1")
        matcher = self.encoder.model.group_matcher(coarse)
        if callable(matcher):
            return lambda name: matcher(name.removeprefix("encoder.model."))
        return {name: _in_encoder(group) for name, group in matcher.items()}


def _in_encoder(group: Any) -> Any:  # noqa: ANN401
    """Patterns for names below `encoder.model`: of one pattern, or of pairs of a pattern and an order.

    >>> _in_encoder("^cls_token|pos_embed"), _in_encoder([(r"^blocks.([0-9]+)", None)])
    ('^encoder.model.(?:cls_token|pos_embed)', [('^encoder.model.(?:blocks.([0-9]+))', None)])
    """
    if isinstance(group, str):
        return f"^encoder.model.(?:{group.replace('^', '')})"
    return [(_in_encoder(pattern), order) for pattern, order in group]

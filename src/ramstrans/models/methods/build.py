"""From a config to a model: the methods by name."""

import logging

from torch import nn

from ramstrans.errors import ConfigError
from ramstrans.models.backbones import build_backbone, current_name
from ramstrans.models.config import MethodName, ModelConfig
from ramstrans.models.encoder import Encoder
from ramstrans.models.methods.calcrop import CalCrop
from ramstrans.models.methods.ffvt import FeatureFusion
from ramstrans.models.methods.glsim import GlobalLocalSimilarity
from ramstrans.models.methods.method import Method
from ramstrans.models.methods.plain import Plain
from ramstrans.models.methods.rams import RamsTrans
from ramstrans.models.methods.transfg import TransFG
from ramstrans.models.pretrained import load_pretrained

METHODS: dict[MethodName, type[Method]] = {
    "plain": Plain,
    "rams": RamsTrans,
    "transfg": TransFG,
    "ffvt": FeatureFusion,
    "glsim": GlobalLocalSimilarity,
    "calcrop": CalCrop,
}

logger = logging.getLogger(__name__)


def build_model(config: ModelConfig) -> Method:
    """Build the model that a config describes, with pretrained weights if it names some.

    Raises:
        ConfigError: The backbone, image size or number of classes cannot work.
        WeightsError: The weights are missing or do not fit.
    """
    if config.num_classes is None:
        raise ConfigError("model.num_classes is not set; give the number of classes, at least 2")
    backbone, name = build_backbone(config), current_name(config.backbone)
    if name != config.backbone:
        logger.info("model.backbone: %s is %s now", config.backbone, name)
    if config.weights is not None:
        logger.info(load_pretrained(backbone, name, config.weights).summary())
    return build_method(backbone, config)


def build_method(backbone: nn.Module, config: ModelConfig) -> Method:
    """Build the method of a config over a timm model.

    Raises:
        ConfigError: This backbone cannot have the method, or what else the config asks for.
    """
    encoder = Encoder(
        backbone,
        config.num_scales,
        config.class_tokens,
        config.mean,
        config.std,
        size=config.input_size,
    )
    return METHODS[config.method].of(encoder, config)

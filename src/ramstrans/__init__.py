"""Fine-grained image recognition with a recurrent-attention multi-scale Vision Transformer.

An image walks through the package from the top down:

    data         a photograph is found (layouts: cub, nabirds, ..., table, shards), decoded, made a view
    model        backbone -> rollout -> regions -> zoom -> and again: rams; its weights and folder
    training     losses, optimiser, one step, the one loop, checkpoints, a run; what it will take: plan
    evaluation   metrics, localization, report, pictures
    inference    predictor, explain, output
    commands     one file a command of the command line (cli)

Public names are loaded when first used, so that `import ramstrans` is quick.
"""

from importlib import import_module, metadata
from typing import Any

try:
    __version__ = metadata.version("ramstrans")
except metadata.PackageNotFoundError:  # a source tree that is not installed
    __version__ = "unknown"

_PUBLIC = {
    "ModelConfig": "ramstrans.models.config",
    "Predictor": "ramstrans.inference.predictor",
    "Output": "ramstrans.models.methods.base",
    "RamsTrans": "ramstrans.models.methods.rams",
    "RamsTransError": "ramstrans.errors",
    "Regions": "ramstrans.models.regions",
    "Stage": "ramstrans.models.methods.base",
    "build_model": "ramstrans.models.methods.rams",
    "load_model": "ramstrans.saved.model",
    "propose_regions": "ramstrans.models.regions",
    "rollout": "ramstrans.models.saliency.rollout",
    "zoom": "ramstrans.models.zoom",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    """Load a public name from its module."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ramstrans' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)

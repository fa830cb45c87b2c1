"""Fine-grained image recognition with a recurrent-attention multi-scale Vision Transformer.

An image passes through the package from top to bottom:

    data         an image file is listed (datasets), decoded (reading), augmented and batched (loading)
    models       encoder -> attention rollout (saliency) -> regions -> zoom -> next scale (methods)
    saved        a trained model in a folder: weights and metadata
    evaluation   predictions, metrics, localization, report, figures
    training     losses, optimiser, one step, the loop, checkpoints, a run; what fits into memory (plan)
    inference    Predictor: files in, predictions and explanations out
    sharing      the model card, and what is pushed to the hub
    bench        cost of models, speed of loaders
    export       a model as one graph for other programs
    compare      many runs from one plan: intervals, tests, accuracy against cost
    serve        a model behind HTTP
    commands     one file per command of the command line (cli)

Imports run one way, from the bottom of this list to the top, on errors, files, console, hub,
distributed and calibration (probabilities that mean what they say, the unknown, sets, ranks, priors).

Public names are loaded when first used, so that `import ramstrans` is quick.
"""

from importlib import import_module, metadata
from typing import Any

try:
    __version__ = metadata.version("ramstrans")
except metadata.PackageNotFoundError:  # a source tree that is not installed
    __version__ = "unknown"

_PUBLIC = {
    "DataConfig": "ramstrans.data.config",
    "ModelConfig": "ramstrans.models.config",
    "Predictor": "ramstrans.inference.predictor",
    "Output": "ramstrans.models.methods.base",
    "RamsTrans": "ramstrans.models.methods.rams",
    "RamsTransError": "ramstrans.errors",
    "Regions": "ramstrans.models.regions",
    "RunConfig": "ramstrans.training.config",
    "Stage": "ramstrans.models.methods.base",
    "TrainingConfig": "ramstrans.training.config",
    "build_model": "ramstrans.models.methods.build",
    "load_model": "ramstrans.saved.model",
    "propose_regions": "ramstrans.models.regions",
    "push": "ramstrans.sharing.push",
    "rollout": "ramstrans.models.saliency.rollout",
    "train": "ramstrans.training.api",
    "zoom": "ramstrans.models.zoom",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    """Load a public name from its module."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ramstrans' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)

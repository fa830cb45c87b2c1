"""Config files: those that come along, and the one that `ramstrans train` starts from."""

import json
import logging
from pathlib import Path
from typing import Any, get_args

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]  # exported by its __init__

from ramstrans.commands.options import Arguments, Parser
from ramstrans.data.config import DatasetFormat
from ramstrans.data.detect import detect_format
from ramstrans.errors import UsageError
from ramstrans.plain import to_plain
from ramstrans.saved.metadata import CONFIG_FILE, load_metadata, saved_folder
from ramstrans.training.config import OPTIONS_FILE

logger = logging.getLogger(__name__)

DEFAULT_CONFIGS = dict.fromkeys(get_args(DatasetFormat), "folder") | {
    "toybirds": "toybirds",
    "cub": "cub200_vitb16",
}
"""What `ramstrans train` starts from, by the format of the data, if `--config` is not given."""

OWN_FIELDS = ("num_classes", "weights", "dropout", "drop_path")
"""Options of a model that a run which starts from its weights has for itself."""


def config_folder() -> Path:
    """Folder of the configs that come along: in the package once installed, else in the repository."""
    installed = Path(__file__).parents[1] / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "configs"


class NamedConfig(ActionConfigFile):
    """`--config FILE`, or the name of a config that comes along, without its folder and suffix."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:  # noqa: ANN401
        """Read the file."""
        shipped = config_folder() / f"{values}.yaml"
        is_shipped = shipped.is_file() and not Path(values).is_file()
        super().__call__(parser, cfg, str(shipped) if is_shipped else values, option_string)  # type: ignore[no-untyped-call]


def start_from(parser: Parser, arguments: Arguments) -> list[str]:
    """Choose what a run starts from: the same for `train` and `plan`.

    The config file below all options is the run's own with --resume, none with --config, else the one for the
    format of the data set. The model is that of a run in --model.weights.

    Returns:
        The options of that model.

    Raises:
        UsageError: The run cannot be resumed, or not with these arguments.
        ConfigError: The config.json beside the weights is damaged.
    """
    path = default_config(arguments)
    parser.default_config_files = [] if path is None else [str(path)]
    weights = arguments.value("--model.weights")
    return [] if weights is None else model_of(weights)


def default_config(arguments: Arguments) -> Path | None:
    """The config file that a run with these arguments starts from, below all its options."""
    resumed, root = arguments.value("--resume"), arguments.value("--data.root")
    if resumed is not None:
        if arguments.value("--config") is not None:
            raise UsageError("--resume and --config do not go together: a run goes on with its own options")
        options = Path(resumed, OPTIONS_FILE)
        if not options.is_file():
            raise UsageError(f"--resume: there is no {options}; give the folder of a run that was stopped")
        return options
    if arguments.value("--config") is not None:
        return None
    name = arguments.value("--data.name")
    if name is None and root is not None:
        name = detect_format(Path(root))
    default = DEFAULT_CONFIGS.get(name or "toybirds")
    return None if default is None else config_folder() / f"{default}.yaml"


def model_of(weights: str) -> list[str]:
    """The options of the model whose run folder, or model.safetensors, these weights are; none for others."""
    folder = saved_folder(weights)
    if folder is None or not (folder / CONFIG_FILE).is_file():
        return []
    model = to_plain(load_metadata(folder).model)
    logger.info("%s: its model, %s, %d scales", weights, model["backbone"], model["num_scales"])
    return [
        f"--model.{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in model.items()
        if name not in OWN_FIELDS
    ]

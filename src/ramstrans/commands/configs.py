"""Config files: those that come along, and the one that `ramstrans train` starts from."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]  # exported by its __init__

from ramstrans.commands.options import Arguments, Parser
from ramstrans.data.detect import detect_format
from ramstrans.errors import UsageError
from ramstrans.plain import to_plain
from ramstrans.saved.metadata import CONFIG_FILE, load_metadata, saved_folder
from ramstrans.training.config import OPTIONS_FILE, RunConfig, TrainingConfig

logger = logging.getLogger(__name__)

RecipeName = Literal["auto", "paper", "none"]
"""Where a run takes what it has not been given from."""

RECIPE_HELP = (
    "Where options that are not given come from. auto: by the kind of pretraining and the size of the "
    "backbone, see docs/training.md; paper: configs/cub200_vitb16.yaml; none: the defaults of --help all. "
    "Default: auto, but none with --config."
)

OWN_FIELDS = ("num_classes", "multi_label", "weights", "dropout", "drop_path")
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

    The config file below all options is the run's own with --resume, else that of its recipe. The model is
    that of a run in --model.weights.

    Returns:
        Options that count more than that file.

    Raises:
        UsageError: The run cannot be resumed, or not with these arguments.
        ConfigError: The config.json beside the weights is damaged.
    """
    path = run_file(arguments) or recipe_file(arguments)
    parser.default_config_files = [] if path is None else [str(path)]
    weights = arguments.value("--model.weights")
    started = [] if weights is None else model_of(weights)
    if is_toybirds(arguments) and arguments.value("--data.name") is None:
        started.append("--data.name=toybirds")
    if arguments.value("--training.warmup_epochs") not in (None, "null"):  # in place of the recipe's steps
        started.append(f"--training.warmup_steps={TrainingConfig.warmup_steps}")
    return started


def run_file(arguments: Arguments) -> Path | None:
    """The options of the run that is resumed, if one is."""
    resumed = arguments.value("--resume")
    if resumed is None:
        return None
    for option in ("--config", "--recipe"):
        if arguments.value(option) is not None:
            raise UsageError(f"--resume and {option} do not go together: a run goes on with its own options")
    options = Path(resumed, OPTIONS_FILE)
    if not options.is_file():
        raise UsageError(f"--resume: there is no {options}; give the folder of a run that was stopped")
    return options


def recipe_of(arguments: Arguments) -> str:
    """The recipe that arguments ask for: given, or by default."""
    return arguments.value("--recipe") or ("auto" if arguments.value("--config") is None else "none")


def recipe_file(arguments: Arguments) -> Path | None:
    """The config file below all options of a run with these arguments."""
    recipe = recipe_of(arguments)
    if recipe == "none":
        return None
    auto = "toybirds" if is_from_scratch(arguments) else "folder"
    return config_folder() / f"{'cub200_vitb16' if recipe == 'paper' else auto}.yaml"


def is_toybirds(arguments: Arguments) -> bool:
    """Whether the data set is the one that is drawn."""
    name, root = arguments.value("--data.name"), arguments.value("--data.root")
    if name is None and root is not None:
        name = detect_format(Path(root))
    is_default = arguments.value("--config") is None and arguments.value("--resume") is None
    return name == "toybirds" or (name is None and is_default)


def is_from_scratch(arguments: Arguments) -> bool:
    """Whether a run is the small one on toybirds, whose config is its recipe: no other model is named."""
    named = ("--model", "--model.backbone", "--model.weights", "--config")
    return is_toybirds(arguments) and all(arguments.value(option) is None for option in named)


def filled_in(config: RunConfig, words: list[str], add_options: Callable[[Parser], None]) -> RunConfig:
    """The run with what its recipe chooses, which is logged; see `with_recipe_of`."""
    config, lines = with_recipe_of(config, words, add_options)
    for line in lines:
        logger.info("%s", line)
    return config


def with_recipe_of(
    config: RunConfig, words: list[str], add_options: Callable[[Parser], None]
) -> tuple[RunConfig, list[str]]:
    """The run with what its recipe chooses, and that in a line each; the same for all commands.

    Args:
        config: The run that the words make.
        words: The arguments of the command.
        add_options: Of the command.

    Raises:
        ConfigError: The backbone cannot work.
    """
    given = given_to_recipe(words, add_options)
    if given is None:
        return config, []
    from ramstrans.training.recipe import with_recipe

    return with_recipe(config, given)


def given_to_recipe(words: list[str], add_options: Callable[[Parser], None]) -> set[str] | None:
    """Names of the options that recipe `auto` leaves as they are; None: it is not used."""
    parser = Parser()
    add_options(parser)
    parser.starting = None
    arguments = parser.split(list(words))
    parser.detect_data(arguments)
    is_resumed = arguments.value("--resume") is not None
    if is_resumed or recipe_of(arguments) != "auto" or is_from_scratch(arguments):
        return None
    return set(parser.parse_args(words, defaults=False).keys())


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

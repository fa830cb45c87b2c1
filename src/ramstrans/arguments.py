"""What a command line means before it is parsed: default configs, and short forms."""

from pathlib import Path
from typing import get_args

from ramstrans.data.config import DatasetFormat
from ramstrans.errors import UsageError

DEFAULT_CONFIGS = dict.fromkeys(get_args(DatasetFormat), "folder.yaml") | {
    "toybirds": "toybirds.yaml",
    "cub": "cub200_vitb16.yaml",
}
"""What `ramstrans train` starts from, by `--data.name`, where no `--config` is given."""


def completed(arguments: list[str]) -> list[str]:
    """Arguments with what they leave unsaid."""
    return with_data_root(with_default_config(with_resumed_config(arguments)))


def config_folder() -> Path:
    """Folder of the configs that come along: in the package once installed, else in the repository."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "configs"


def with_default_config(arguments: list[str]) -> list[str]:
    """Arguments of `train`, with the default config of their data put first where they name none.

    A config that comes along may be named without its folder and ending, by `train` and `plan`.
    """
    if arguments[:1] not in (["train"], ["plan"]) or "--help" in arguments or "-h" in arguments:
        return arguments
    joined = [part for argument in arguments for part in argument.split("=", 1)]
    if "--config" in joined[:-1]:
        value = joined[joined.index("--config") + 1]
        shipped = config_folder() / f"{value}.yaml"
        if shipped.exists() and not Path(value).is_file():
            place = next(i for i, argument in enumerate(arguments) if argument.startswith("--config"))
            width = 1 if "=" in arguments[place] else 2
            return [*arguments[:place], f"--config={shipped}", *arguments[place + width :]]
        return arguments
    if arguments[0] == "plan":
        return arguments
    name = joined[joined.index("--data.name") + 1] if "--data.name" in joined[:-1] else "toybirds"
    config = DEFAULT_CONFIGS.get(name)
    return ["train", "--config", str(config_folder() / config), *arguments[1:]] if config else arguments


def with_data_root(arguments: list[str]) -> list[str]:
    """Arguments of `bench`, with `--data ROOT` spelt out: its folder or table, and its layout.

    >>> with_data_root(["bench", "--data", "photographs.csv"])
    ['bench', '--data.root', 'photographs.csv', '--data.name', 'table']
    """
    if arguments[:1] != ["bench"] or "--data" not in arguments[:-1]:
        return arguments
    place = arguments.index("--data")
    root = arguments[place + 1]
    spelt = ["--data.root", root]
    from ramstrans.data.build import detect_format

    if not any(argument.split("=", 1)[0] == "--data.name" for argument in arguments):
        spelt += ["--data.name", detect_format(Path(root))]
    return [*arguments[:place], *spelt, *arguments[place + 2 :]]


def with_resumed_config(arguments: list[str]) -> list[str]:
    """Arguments of `train --resume RUN`, with the options that the run began with.

    >>> with_resumed_config(["train", "--seed", "1"])
    ['train', '--seed', '1']
    """
    joined = [part for argument in arguments for part in argument.split("=", 1)]
    if arguments[:1] != ["train"] or "--resume" not in joined[:-1]:
        return arguments
    if "--config" in joined:
        raise UsageError("--resume and --config do not go together: a run goes on with its own options")
    options = Path(joined[joined.index("--resume") + 1], "run.yaml")
    if not options.is_file():
        raise UsageError(f"--resume: there is no {options}; give the folder of a run that was stopped")
    return ["train", f"--config={options}", *arguments[1:]]

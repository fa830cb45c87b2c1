"""Config files: those that come along, and the one that `ramstrans train` starts from."""

import argparse
from pathlib import Path
from typing import Any, NoReturn, get_args

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]  # exported by its __init__

from ramstrans.data.config import DatasetFormat
from ramstrans.errors import UsageError
from ramstrans.training.config import OPTIONS_FILE

DEFAULT_CONFIGS = dict.fromkeys(get_args(DatasetFormat), "folder") | {
    "toybirds": "toybirds",
    "cub": "cub200_vitb16",
}
"""What `ramstrans train` starts from, by `--data.name`, if `--config` is not given."""


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


class _Peek(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `ramstrans train --help`")


def default_config(arguments: list[str]) -> Path | None:
    """The config file that `ramstrans train` with these arguments starts from.

    That is the run's own with `--resume`, none with `--config`, else the one for `--data.name`.

    Raises:
        UsageError: The run cannot be resumed, or not with these arguments.

    >>> default_config(["--data.name", "cub"]).name
    'cub200_vitb16.yaml'
    """
    peek = _Peek(add_help=False, allow_abbrev=False)
    for name in ("--config", "--resume", "--data.name"):
        peek.add_argument(name)
    known = vars(peek.parse_known_args(arguments)[0])
    if known["resume"] is not None:
        if known["config"] is not None:
            raise UsageError("--resume and --config do not go together: a run goes on with its own options")
        options = Path(known["resume"], OPTIONS_FILE)
        if not options.is_file():
            raise UsageError(f"--resume: there is no {options}; give the folder of a run that was stopped")
        return options
    default = DEFAULT_CONFIGS.get(known["data.name"] or "toybirds")
    return None if default is None or known["config"] is not None else config_folder() / f"{default}.yaml"

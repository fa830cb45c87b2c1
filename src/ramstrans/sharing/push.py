"""What of a run is pushed to the hub: the model, its report, the card and a picture; nothing of the data."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, NamedTuple

from ramstrans.calibration.fitted import ARRAYS_FILE, CALIBRATION_FILE
from ramstrans.errors import UsageError, WeightsError
from ramstrans.hub import Address, is_address, upload
from ramstrans.saved.metadata import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    ModelMetadata,
    load_metadata,
    member,
    metadata_to_json,
)
from ramstrans.sharing.card import model_card

logger = logging.getLogger(__name__)

CARD_FILE = "README.md"
REPORT_FILE = "report.json"
PICTURE_FILE = "confusion.png"
"""The figure of a run that shows no photographs."""

NOT_SHARED = ("command",)
"""Keys of a report that name what is on one's own machine."""

_FOLDERS = re.compile(r"(?:(?<=[\s'\"(=])|^)(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\]+[/\\])+")
"""Folders of an absolute path in a text."""


class Push(NamedTuple):
    """What is pushed, and where.

    Attributes:
        address: The repository, and its branch.
        files: Name -> content, or the file that has it.
        card: The text of the model card.
    """

    address: Address
    files: Mapping[str, bytes | Path]
    card: str

    def lines(self) -> list[str]:
        """A line per file, with its size."""
        sizes = {
            name: content.stat().st_size if isinstance(content, Path) else len(content)
            for name, content in self.files.items()
        }
        return [f"{name}: {size / 1e6:.1f} MB" if size >= 1e5 else f"{name}: {size / 1e3:.1f} kB"
                for name, size in sizes.items()]  # fmt: skip


def prepare_push(
    run: Path | str, repository: str, *, licence: str | None = None, picture: Path | None = None
) -> Push:
    """Collect what of a run is pushed; nothing is sent, and nothing written.

    Pushed are the weights, config.json and report.json without the paths of this machine, the card and one
    picture. A README.md in the run folder is the card, instead of the one that is written here.

    Args:
        run: Run folder, or any saved model.
        repository: `user/name`, or `user/name@branch`.
        licence: Its identifier on the hub, e.g. `apache-2.0`.
        picture: The card's picture; None: `confusion.png` of the run, if there is one.

    Raises:
        WeightsError: The run has no model.
        ConfigError: Its config.json is damaged.
        UsageError: The repository or the picture is not one.
    """
    address = Address.parse(repository)
    if is_address(run):
        raise UsageError(f"{Address.parse(str(run))} is on the hub already; give a run folder")
    folder = Path(run)
    weights, metadata = member(folder, WEIGHTS_FILE), without_paths(load_metadata(folder))
    report = read_report(folder)
    shown = folder / PICTURE_FILE if picture is None else picture
    if picture is not None and (not picture.is_file() or picture.suffix.lower() not in (".png", ".jpg")):
        reason = "is not a .png or .jpg file" if picture.is_file() else "does not exist"
        raise UsageError(f"--picture {picture} {reason}; give another, or leave it out")
    name = shown.name if shown.is_file() else None
    card = model_card(metadata, report, address, picture=name, licence=licence)
    if (folder / CARD_FILE).is_file():
        card = (folder / CARD_FILE).read_text(encoding="utf-8")
        logger.info("%s is taken as the card, as it is", folder / CARD_FILE)
    files: dict[str, bytes | Path] = {CARD_FILE: card.encode()}
    files[CONFIG_FILE] = metadata_to_json(metadata).encode(errors="backslashreplace")
    if report is not None:
        files[REPORT_FILE] = as_json(report)
    fitted = read_if_there(folder / CALIBRATION_FILE, f"`ramstrans calibrate {folder}`")
    if fitted is not None:
        files[CALIBRATION_FILE] = as_json(nameless(fitted))
    if (folder / ARRAYS_FILE).is_file():
        files[ARRAYS_FILE] = folder / ARRAYS_FILE
    if name is not None:
        files[name] = shown
    return Push(address, files | {WEIGHTS_FILE: weights}, card)


def push(
    run: Path | str,
    repository: str,
    *,
    private: bool = False,
    message: str | None = None,
    licence: str | None = None,
    picture: Path | None = None,
) -> str:
    """Push a run to the hub, in one commit; see `prepare_push`.

    Args:
        run: Run folder, or any saved model.
        repository: `user/name`, or `user/name@branch`; what is not there is created.
        private: Whether a new repository is private.
        message: Of the commit.
        licence: Its identifier on the hub, e.g. `apache-2.0`.
        picture: The card's picture; None: `confusion.png` of the run, if there is one.

    Returns:
        The web address of the commit.

    Raises:
        RamsTransError: As `prepare_push`, or the hub cannot be reached or refuses.
    """
    return send(
        prepare_push(run, repository, licence=licence, picture=picture), private=private, message=message
    )


def send(prepared: Push, *, private: bool, message: str | None = None) -> str:
    """Push what was prepared; returns the web address of the commit."""
    return upload(prepared.address, prepared.files, private=private, message=message or "Model of ramstrans")


def read_report(folder: Path) -> dict[str, Any] | None:
    """The report of a run without what names this machine; None if there is none.

    Raises:
        WeightsError: It is damaged.
    """
    report = read_if_there(folder / REPORT_FILE, f"`ramstrans evaluate {folder}`")
    if report is None:
        return None
    return {key: nameless(value) for key, value in report.items() if key not in NOT_SHARED}


def read_if_there(path: Path, remedy: str) -> dict[str, Any] | None:
    """A JSON object from a file; None if there is no file.

    Raises:
        WeightsError: It is damaged; the remedy writes another.
    """
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is damaged ({error}); {remedy} writes another") from error
    return content


def as_json(values: Mapping[str, Any]) -> bytes:
    """The content of a JSON file."""
    return json.dumps(values, indent=2, ensure_ascii=False).encode(errors="backslashreplace")


def without_paths(metadata: ModelMetadata) -> ModelMetadata:
    """Metadata with the last part of each path, where an absolute one tells of this machine."""
    return replace(metadata, training=nameless(metadata.training))


def nameless(value: Any) -> Any:  # noqa: ANN401 - any tree of values
    """Replace absolute paths in a tree of values by their last part, also within a text.

    >>> nameless({"root": "/home/ann/my birds", "note": "/home/ann/a.jpg: empty file", "crop": [7, 5]})
    {'root': 'my birds', 'note': 'a.jpg: empty file', 'crop': [7, 5]}
    """
    if isinstance(value, dict):
        return {key: nameless(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [nameless(entry) for entry in value]
    if not isinstance(value, str):
        return value
    for kind in (PurePath, PureWindowsPath):
        if kind(value).is_absolute() and ": " not in value:
            return kind(value).name
    return _FOLDERS.sub("", value)

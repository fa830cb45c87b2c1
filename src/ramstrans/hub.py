"""The Hugging Face hub: `hf://user/name[@revision]` where a run folder is taken, and what `push` sends.

Files lie in the hub's own cache; the token is that of `hf auth login` or `HF_TOKEN`.
"""

import functools
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from ramstrans.errors import RamsTransError, UsageError, WeightsError

DESCRIPTION = "config.json"
FILES = (DESCRIPTION, "model.safetensors", "report.json", "calibration.json", "calibration.safetensors")
"""What is downloaded of a saved model: the first says whether it is one."""

SCHEME = "hf://"
TIMEOUT = 5.0
"""Seconds to wait for the hub's first answer."""

_SCHEME = re.compile(r"hf:/{1,2}")  # `Path` takes the second slash away
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class Address(NamedTuple):
    """A repository of the hub.

    Attributes:
        repository: `user/name`.
        revision: Branch, tag or commit; None: `main`.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return SCHEME + self.repository + ("" if self.revision is None else f"@{self.revision}")

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read `user/name[@revision]`, with or without `hf://`.

        Raises:
            UsageError: It is not such a name.

        >>> str(Address.parse("hf:/ann/wrens@v2")), Address.parse("ann/wrens").revision
        ('hf://ann/wrens@v2', None)
        """
        repository, at, revision = _SCHEME.sub("", name, count=1).partition("@")
        if not _REPOSITORY.fullmatch(repository) or bool(at) != bool(revision):
            shown = _SCHEME.sub(SCHEME, name, count=1)
            raise UsageError(f"{shown} is not a repository of the hub; give user/name or user/name@revision")
        return cls(repository, revision or None)


def is_address(run: Path | str) -> bool:
    """Whether a run is named by its repository on the hub, also after `Path` took a slash away.

    >>> is_address("hf://ann/wrens"), is_address(Path("hf://ann/wrens")), is_address("runs/hf")
    (True, True, False)
    """
    return _SCHEME.match(str(run)) is not None


def local_folder(run: Path | str) -> Path:
    """The folder of a run: itself, or for `hf://user/name[@revision]` its copy in the hub's cache.

    The hub is asked once per process for what a branch holds, so that all files are of one commit. Without a
    network, or with `HF_HUB_OFFLINE`, the copy in the cache is taken.

    Raises:
        UsageError: The address is malformed.
        WeightsError: There is no such repository, no right to read it, no network and no copy, or no model.
    """
    return _downloaded(Address.parse(str(run))) if is_address(run) else Path(run)


@functools.cache
def _downloaded(address: Address) -> Path:
    """Download config.json, look whether it is ours, then the rest."""
    from huggingface_hub import snapshot_download

    from ramstrans import __version__

    reason = why_unreachable()

    def fetch(revision: str | None, *names: str) -> Path:
        folder = snapshot_download(
            address.repository,
            revision=revision,
            allow_patterns=[*names],
            library_name="ramstrans",
            library_version=__version__,
        )
        return Path(folder)

    with offline(reason is not None), hub_errors(address, reason):
        folder = fetch(address.revision, DESCRIPTION)
        check_ours(folder, address)
        fetch(folder.name, *FILES)  # of the same commit
    return folder


def check_ours(folder: Path, address: Address) -> None:
    """Raise WeightsError unless the config.json of a repository is that of a saved model."""
    try:
        config = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        config = None
    except ValueError as error:
        raise WeightsError(
            f"{address}: its {DESCRIPTION} is not JSON ({error}); push the run again"
        ) from error
    if not isinstance(config, dict) or "format_version" not in config:
        raise WeightsError(
            f"{address} has no model of ramstrans: its {DESCRIPTION} is "
            f"{'missing' if config is None else 'of another library'}; name a repository that "
            "`ramstrans push` wrote"
        )


def upload(address: Address, files: Mapping[str, bytes | Path], *, private: bool, message: str) -> str:
    """Commit files to a repository, which is created if necessary, as its branch is; all of them or none.

    Files of a model that was there before, and which this one has not, are removed: its calibration or report
    would be taken for the new one's.

    Args:
        address: The repository; its revision is a branch.
        files: Name -> content, or the file that has it.
        private: Whether a new repository is private; one that exists stays as it is.
        message: Of the commit.

    Returns:
        The address of the commit.

    Raises:
        WeightsError: There is no network, or no right to write there.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    from ramstrans import __version__

    reason = why_unreachable()
    if reason is not None:
        raise WeightsError(f"{address}: nothing was pushed, the hub cannot be reached ({reason})")
    api = HfApi(library_name="ramstrans", library_version=__version__)
    changes: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(name, content) for name, content in files.items()
    ]
    with hub_errors(address, None):
        api.create_repo(address.repository, private=private, exist_ok=True)
        if address.revision is not None:
            api.create_branch(address.repository, branch=address.revision, exist_ok=True)
        there = api.list_repo_files(address.repository, revision=address.revision)
        changes += [CommitOperationDelete(name) for name in FILES if name in there and name not in files]
        commit = api.create_commit(
            address.repository, changes, commit_message=message, revision=address.revision
        )
    return str(commit.commit_url)


@contextmanager
def hub_errors(address: Address, unreachable: str | None) -> Iterator[None]:
    """Raise what the hub's client raises as a WeightsError of one line."""
    from huggingface_hub import errors

    try:
        yield
    except RamsTransError:
        raise
    except (OSError, ValueError, RuntimeError) as raised:  # the client's own errors are among them
        error = raised.__cause__ if isinstance(raised, RuntimeError) and raised.__cause__ else raised
        answers = (getattr(one, "response", None) for one in (error, error.__cause__))
        status = next((answer.status_code for answer in answers if answer is not None), None)
        if isinstance(error, errors.LocalEntryNotFoundError) and status not in (401, 403):
            problem = "it is not in the hub's cache, and the hub "
            problem += f"cannot be reached ({unreachable})" if unreachable else "did not answer; try again"
        elif isinstance(error, errors.GatedRepoError):
            problem = "its owner has to give you access first; ask for it on its page, then `hf auth login`"
        elif isinstance(error, errors.RevisionNotFoundError):
            problem = f"it has no revision {address.revision}; give a branch, tag or commit"
        elif isinstance(error, errors.RepositoryNotFoundError) or status == 404:
            problem = "no such repository, or a private one of others; see its name, and `hf auth whoami`"
        elif status in (401, 403):
            problem = "your token has no right to do that; `hf auth login` with one that may"
        else:
            problem = " ".join(str(error).split())[:300] or type(error).__name__
        raise WeightsError(f"{address}: {problem}") from error


def why_unreachable() -> str | None:
    """Why the hub cannot be reached, in words of the system; None if it can. One try of a few seconds."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        with urllib.request.urlopen(request, timeout=TIMEOUT):
            return None
    except urllib.error.HTTPError:
        return None  # it answered
    except OSError as error:
        reason = getattr(error, "reason", error)
        return None if isinstance(reason, ssl.SSLError) else f"{constants.ENDPOINT}: {reason}"


@contextmanager
def offline(is_offline: bool) -> Iterator[None]:
    """Let the hub's client read its cache at once, without a minute of retries."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or is_offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before

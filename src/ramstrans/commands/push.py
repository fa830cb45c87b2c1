"""`ramstrans push`."""

import logging
from pathlib import Path

from jsonargparse import Namespace

from ramstrans.commands.options import Parser

logger = logging.getLogger(__name__)


def add_options(parser: Parser) -> None:
    """Options of `push`: the parameters of the function, whose name is not a public one of the package.

    jsonargparse looks functions up by name in every package, and `ramstrans.push` loads what it needs.
    """
    parser.add_function_arguments(push_run, as_group=False, as_positional=True)


def run(options: Namespace, _given: list[str]) -> int:
    """Share a model on the Hugging Face hub: weights, card and report."""
    return push_run(**vars(options))


def push_run(
    run: Path,
    repository: str,
    private: bool = False,
    message: str | None = None,
    licence: str | None = None,
    picture: Path | None = None,
    dry_run: bool = False,
) -> int:
    """Push a run; a repository or branch that is not there is created.

    Args:
        run: Run folder, or any saved model.
        repository: user/name on the hub, or user/name@branch.
        private: Make a new repository private.
        message: Of the commit.
        licence: Its identifier on the hub, e.g. apache-2.0.
        picture: The card's picture, .png or .jpg; default: confusion.png of the run, which shows no
            photographs.
        dry_run: List what would be pushed, and print the card. It may be edited as RUN/README.md, which is
            pushed instead.

    Raises:
        RamsTransError: The run has no model, or the hub cannot be reached or refuses.
    """
    from ramstrans.sharing.push import prepare_push, send

    prepared = prepare_push(run, repository, licence=licence, picture=picture)
    logger.info("%s gets, and of the data, checkpoints and logs nothing:", prepared.address)
    for line in prepared.lines():
        logger.info("  %s", line)
    if dry_run:
        print(prepared.card, end="")  # noqa: T201
        return 0
    logger.info("pushed: %s", send(prepared, private=private, message=message))
    return 0

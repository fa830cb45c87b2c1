"""`ramstrans data download`."""

import logging
from pathlib import Path

from jsonargparse import Namespace

from ramstrans.commands.options import Parser
from ramstrans.console import progress_bar
from ramstrans.data.download.registry import REGISTRY

logger = logging.getLogger(__name__)

_MB = 10**6


def add_options(parser: Parser) -> None:
    """Options of `data download`."""
    parser.add_argument("name", choices=tuple(REGISTRY), help="Name of the data set.")
    parser.add_argument("root", type=Path, help="Folder to create.")
    parser.add_argument(
        "--keep_archives", type=bool, default=False, help="Keep the downloaded files in ROOT.archives."
    )


def run(options: Namespace, _given: list[str]) -> int:
    """Download a published data set from its publisher, or explain how to get it."""
    from ramstrans.data.download.published import download_data_set

    with progress_bar() as progress:
        download_data_set(
            options.name,
            options.root,
            keep_archives=options.keep_archives,
            progress=lambda done, total, what: progress(done // _MB, total // _MB, f"{what}, MB"),
        )
    print(options.root)  # noqa: T201
    logger.info("read it by --data.name %s --data.root %s", REGISTRY[options.name].data_name, options.root)
    return 0

"""`ramstrans data make`."""

from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from ramstrans.commands.options import Parser
from ramstrans.console import progress_bar


def add_options(parser: Parser) -> None:
    """Options of `data make`."""
    parser.add_argument("name", type=Literal["toybirds"], help="Name of the data set.")
    parser.add_argument("root", type=Path, help="Folder to create.")
    parser.add_argument(
        "--far",
        type=bool,
        default=False,
        help="Birds below 2 percent of images of 1,024 pixels, among much clutter; takes about 1 GB.",
    )


def run(options: Namespace, _given: list[str]) -> int:
    """Draw a generated data set into a folder, in the format of CUB-200-2011."""
    from ramstrans.data.toybirds.generator import make_toybirds

    with progress_bar() as progress:
        make_toybirds(options.root, far=options.far, progress=progress)
    print(options.root)  # noqa: T201
    return 0

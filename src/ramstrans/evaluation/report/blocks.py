"""What a page is made of, once as Markdown and once as HTML (`html`), both from the same blocks."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ramstrans.evaluation.report.tables import cell, table
from ramstrans.plain import utf8_text


class Heading(NamedTuple):
    """A heading of level 1, 2 or 3."""

    level: int
    text: str


class Text(NamedTuple):
    """A paragraph; a note stands out."""

    text: str
    is_note: bool = False


class Items(NamedTuple):
    """A list of sentences."""

    texts: Sequence[str]


class Table(NamedTuple):
    """A table; its columns from `first_right` on hold numbers. Rows in `bold` stand out.

    In HTML one that `is_sortable` is sorted by a click on a header.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    first_right: int = 1
    bold: frozenset[int] = frozenset()
    is_sortable: bool = False


class Picture(NamedTuple):
    """A PNG file with its caption."""

    path: Path
    caption: str


class Code(NamedTuple):
    """Text as it is."""

    text: str


Block = Heading | Text | Items | Table | Picture | Code


def markdown_of(blocks: Sequence[Block], folder: Path) -> str:
    """Render blocks as Markdown; pictures are linked relative to a folder."""
    return utf8_text("\n\n".join(_markdown(block, folder) for block in blocks) + "\n")


def _markdown(block: Block, folder: Path) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {cell(text)}"
        case Text(text, is_note):
            return f"> **Note:** {cell(text)}" if is_note else cell(text)
        case Items(texts):
            return "\n".join(f"- {cell(text)}" for text in texts)
        case Table(header=header, rows=rows):
            return table(header, rows)
        case Picture(path, caption):
            return f"![{cell(caption)}]({quote(path.relative_to(folder).as_posix())})\n\n*{cell(caption)}*"
        case Code(text):
            return f"```\n{text.rstrip()}\n```"

"""HTML pages of one file: styles, script and pictures are inside, and nothing is requested from anywhere."""

import base64
import functools
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from ramstrans.evaluation.report.blocks import Block, Heading
from ramstrans.evaluation.report.style import shortened
from ramstrans.plain import utf8_text

LARGEST_FIGURE = 300_000
"""Bytes from which on a figure is compressed with loss."""

TEMPLATES = Path(__file__).with_name("templates")


def html_of(blocks: Sequence[Block]) -> str:
    """Render blocks as a page; the first heading is its title."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "")
    return render("blocks.html", title=title, blocks=blocks)


def render(template: str, **values: Any) -> str:  # noqa: ANN401 - whatever the template shows
    """Render a template that extends `base.html`; texts are escaped, a missing value is an error."""
    return utf8_text(environment().get_template(template).render(values))


@functools.cache
def environment() -> Environment:
    """Jinja's environment, with the style sheet, the script and the policy that allows just these."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    found.globals.update(style=Markup(style), script=Markup(script), policy=policy(style, script))
    found.filters.update(kind=lambda block: type(block).__name__, picture=picture_uri, soft=soft, short=short)
    return found


def short(text: str) -> str:
    """A name for where there is little room."""
    return shortened(text, 48)


def soft(text: str) -> Markup:
    """Let a long name break after the marks that join its words.

    >>> soft("Crow_&_Wren")
    Markup('Crow_<wbr>&amp;_<wbr>Wren')
    """
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=_)|(?<=[./-])(?=\w)", text))


def policy(style: str, script: str) -> str:
    """The content security policy of a page: this style and script, pictures inside, no request to anywhere.

    https://www.w3.org/TR/CSP3/
    """
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def picture_uri(path: Path) -> str:
    """A figure's file as a data URI: WebP, without loss unless it holds photographs and would be large."""
    with Image.open(path) as image:
        figure = image.convert("RGB")
    for options in ({"lossless": True}, {"quality": 75}):
        stream = io.BytesIO()
        figure.save(stream, "webp", **options)
        if len(stream.getvalue()) <= LARGEST_FIGURE:
            break
    return data_uri(stream.getvalue())


def data_uri(content: bytes) -> str:
    """A WebP file as a data URI."""
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"

"""The documentation site: `sphinx-build -W docs site` (see CONTRIBUTING.md)."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx

from ramstrans.cli import COMMANDS
from ramstrans.commands.data import COMMANDS as DATA_COMMANDS

project = "ramstrans"
author = "RAMS-Trans"
version = release = metadata.version("ramstrans")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["site"]
default_role = "code"
html_theme = "furo"
html_title = "ramstrans"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["attrs_block", "colon_fence"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

HELP = Path(__file__).with_name("commands.md")
"""The page of the command line; written here, from what `--help all` prints."""


def write_help(_app: Sphinx) -> None:
    """Write the page of the command line."""
    parts = ["# Command line", "", "What `ramstrans COMMAND --help all` prints.", ""]
    names = [name for name in COMMANDS if name != "data"] + [f"data {name}" for name in DATA_COMMANDS]
    for command in names:
        line = [sys.executable, "-m", "ramstrans", *command.split(), "--help", "all"]
        text = subprocess.run(line, capture_output=True, text=True, check=True).stdout
        parts += [f"## ramstrans {command}", "", "```text", text.rstrip(), "```", ""]
    HELP.write_text("\n".join(parts), encoding="utf-8")


def keep_together(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Let no line of a table break at the sign of a mean's standard deviation."""
    source[0] = source[0].replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_help)
    app.connect("source-read", keep_together)

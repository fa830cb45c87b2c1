"""Fetch what the tests of the page need from npm, once: `python -m tests.web.packages`."""

import pytest

from ramstrans.export.npm import RUNTIME, cached_package, npm_package

AXE = "axe-core@4.14.1"
"""Judges the accessibility of a page."""


def needs_package(name):
    """The folder of a package of npm; skips the test unless it was fetched."""
    folder = cached_package(name)
    if not folder.is_dir():
        pytest.skip(f"no {folder}; `python -m tests.web.packages` fetches it by npm")
    return folder


if __name__ == "__main__":
    for package in (RUNTIME, AXE):
        npm_package(package)

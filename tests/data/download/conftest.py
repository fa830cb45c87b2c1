import pytest

from ramstrans.data.download import fetch as module
from tests.data.web import serving


@pytest.fixture
def web(monkeypatch):
    """A server."""
    monkeypatch.setenv("no_proxy", "*")
    with serving() as web:
        yield web


@pytest.fixture
def pauses(monkeypatch):
    """Seconds of each pause between attempts; none takes any time."""
    pauses = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    return pauses

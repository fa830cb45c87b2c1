import pytest

from ramstrans.data.download import fetch as download
from ramstrans.data.download.fetch import fetch
from ramstrans.data.download.unpack import LIMITS, unpack
from ramstrans.errors import DataError
from tests.data.download.served import CHECKSUMS, CONTENT, SIZE, WHOLE
from tests.data.web import Fault, serving


@pytest.fixture
def web(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as web:
        web.files[WHOLE] = CONTENT
        yield web


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were to be waited; nobody does."""
    waits = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    return waits


@pytest.fixture
def path(tmp_path):
    return tmp_path / "photographs.tgz"


@pytest.fixture
def get(web, path, waits):
    """`fetch` of the one file; what it says is in `get.said`."""

    def get(checksums=CHECKSUMS, num_bytes=SIZE, **options):
        return fetch(web.url(WHOLE), path, checksums, num_bytes, say=get.said.append, **options)

    get.said = []
    return get


@pytest.fixture
def stopped(get, web, monkeypatch):
    """A download that was stopped after 1000003 bytes."""

    def stop(_):
        raise KeyboardInterrupt

    web.faults = [Fault(send=1_000_003)]
    with monkeypatch.context() as patch:
        patch.setattr(download.time, "sleep", stop)
        with pytest.raises(KeyboardInterrupt):
            get()
    web.requests.clear()
    get.said.clear()


@pytest.fixture
def folder(tmp_path):
    """Where to unpack: what is written beside it can be seen."""
    folder = tmp_path / "outer" / "inner"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def refused(tmp_path, folder):
    """Unpacks what must be refused: the message. Nothing lies outside of the folder."""

    def refused(archive, limits=LIMITS):
        with pytest.raises(DataError) as caught:
            unpack(archive, folder, limits)
        message = str(caught.value)
        assert message.startswith(str(archive))
        assert "\n" not in message
        assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(folder)} == {
            archive,
            folder.parent,
        }
        return message

    return refused

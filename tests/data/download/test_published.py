import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from ramstrans.data.download.published import download_data_set
from ramstrans.data.download.registry import REGISTRY
from ramstrans.errors import DataError, OutputError
from tests.data.web import CONTENTS, UNPACKED, Fault, files_in, source_of, zipped


@pytest.fixture
def birds(web, pauses, monkeypatch):
    """Serves a data set of three files; `lists.zip` has no published checksum."""
    web.files.update(CONTENTS)
    monkeypatch.setitem(REGISTRY, "birds", source_of(web))
    return web


@pytest.fixture
def root(tmp_path):
    return tmp_path / "here" / "birds"


def test_a_data_set_is_downloaded_and_unpacked(birds, root, caplog):
    caplog.set_level("INFO", "ramstrans")
    seen = []
    download_data_set("birds", root, progress=lambda *call: seen.append(call))
    assert files_in(root) == UNPACKED
    assert list(root.parent.iterdir()) == [root]
    logged = [record.getMessage() for record in caplog.records]
    assert logged[:2] == ["Birds: 0.0 GB to download, see https://example.org", "terms: none"]
    assert logged[2] == "images.tgz: downloaded, sha256 as published"
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    kinds = {what for _, _, what in seen}
    assert {"downloading images.tgz", "unpacking images.tgz", "unpacking lists.zip"} <= kinds


def test_archives_may_be_kept_and_are_used_again(birds, root, tmp_path):
    download_data_set("birds", root, keep_archives=True)
    archives = root.with_name("birds.archives")
    assert {f"/{name}": content for name, content in files_in(archives).items() if name[0] != "."} == CONTENTS
    root.rename(tmp_path / "moved")
    birds.files.clear()
    download_data_set("birds", root)
    assert files_in(root) == UNPACKED
    assert not archives.exists()


def test_it_resumes_the_next_time(birds, root):
    birds.faults = [Fault(), Fault(), Fault(send=2), *[Fault(503)] * 5]
    with pytest.raises(DataError, match="503"):
        download_data_set("birds", root)
    assert list(root.parent.iterdir()) == [root.with_name("birds.archives")]
    birds.requests.clear()
    download_data_set("birds", root)
    assert files_in(root) == UNPACKED
    assert birds.requests == [("/setid.mat", "bytes=2-")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"<html>log in</html>", "not a zip file"), (zipped({"stolen": b"x" * 99})[:-1], "not a zip file")],
)
def test_an_archive_that_is_refused_leaves_nothing(birds, root, tmp_path, content, reason):
    birds.files["/lists.zip"] = content
    with pytest.raises(DataError, match=rf"birds.archives/lists.zip was not unpacked: .*{reason}"):
        download_data_set("birds", root)
    assert list(root.parent.iterdir()) == [root.with_name("birds.archives")]
    assert list(tmp_path.iterdir()) == [root.parent]
    (root.with_name("birds.archives") / "lists.zip").unlink()
    birds.files["/lists.zip"] = CONTENTS["/lists.zip"]
    download_data_set("birds", root)
    assert files_in(root) == UNPACKED


@pytest.mark.parametrize("name", [name for name, source in REGISTRY.items() if not source.files])
def test_instructions_where_there_is_no_download(root, name):
    with pytest.raises(DataError, match=rf"cannot be downloaded directly: .*--data.name {name}") as caught:
        download_data_set(name, root)
    assert REGISTRY[name].instructions in str(caught.value)
    assert not root.parent.exists()


def test_folders_that_cannot_be_created(birds, root):
    root.mkdir(parents=True)
    (root / "mine").write_text("keep")
    with pytest.raises(OutputError, match="birds is not empty"):
        download_data_set("birds", root)
    with pytest.raises(OutputError, match=r"cannot be written .*; give another folder"):
        download_data_set("birds", root / "mine" / "birds")
    assert files_in(root.parent) == {"birds/mine": b"keep"}
    assert birds.requests == []


def test_a_link_to_an_empty_folder_and_a_relative_path(birds, root, tmp_path, monkeypatch):
    (tmp_path / "large disk").mkdir()
    root.parent.mkdir()
    root.symlink_to(tmp_path / "large disk")
    monkeypatch.chdir(root.parent)
    download_data_set("birds", Path("birds/"))
    assert root.is_symlink()
    assert files_in(tmp_path / "large disk") == UNPACKED


def test_one_at_a_time(birds, root):
    archives = root.with_name("birds.archives")
    archives.mkdir(parents=True)
    with (
        FileLock(archives / ".lock"),
        pytest.raises(OutputError, match=r"another download into .*birds is running; wait"),
    ):
        download_data_set("birds", root)
    assert birds.requests == []


class Usage:
    def __init__(self, free):
        self.free = free


def test_room_for_the_archives_and_for_what_is_in_them(birds, root, monkeypatch):
    total, there = REGISTRY["birds"].num_bytes, 11
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2 * total - there - 1))
    archives = root.with_name("birds.archives")
    archives.mkdir(parents=True)
    (archives / "images.tgz.part").write_bytes(CONTENTS["/images.tgz"][:there])
    with pytest.raises(OutputError, match=r"MB left; archives and images take [\d,]+ MB: free some"):
        download_data_set("birds", root)
    assert birds.requests == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2 * total - there))
    download_data_set("birds", root)
    assert files_in(root) == UNPACKED

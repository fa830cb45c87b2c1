import hashlib
import subprocess

import pytest
from filelock import FileLock

from ramstrans.data.download import fetch as download
from ramstrans.data.download import published
from ramstrans.data.download.published import download_data_set
from ramstrans.data.download.registry import REGISTRY
from ramstrans.errors import DataError, OutputError
from tests.data.web import CONTENTS, UNPACKED, Fault, files_in, publication_of, serving, zipped


@pytest.fixture
def web(monkeypatch):
    """Serves a set of three files, of which `lists.zip` has no published checksum."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    with serving() as web:
        web.files.update(CONTENTS)
        monkeypatch.setitem(REGISTRY, "birds", publication_of(web))
        yield web


@pytest.fixture
def root(tmp_path):
    return tmp_path / "here" / "birds"


def test_a_set_comes_whole(web, root):
    said, seen = [], []
    download_data_set("birds", root, say=said.append, progress=lambda *call: seen.append(call))
    assert files_in(root) == UNPACKED
    assert sorted(path.name for path in root.parent.iterdir()) == ["birds", "birds.sha256"]
    assert said[:2] == ["Birds: 0.0 GB to download, see https://example.org", "terms: none"]
    assert said[2] == "images.tgz: downloaded; sha256 as the catalogue has it"
    assert said[3] == "lists.zip: downloaded; no checksum to compare with"
    assert said[5].startswith("no checksum is published of lists.zip: wrote theirs to ")
    kinds = {what for _, _, what in seen}
    assert {"downloading images.tgz", "unpacking images.tgz", "unpacking lists.zip"} <= kinds


def test_the_archives_may_be_kept_and_are_used_again(web, root):
    download_data_set("birds", root, keep_archives=True)
    archives = root.with_name("birds.archives")
    assert {f"/{name}": content for name, content in files_in(archives).items() if name[0] != "."} == CONTENTS
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    web.files.clear()
    said = []
    download_data_set("birds", root, say=said.append)
    assert files_in(root) == UNPACKED
    assert said[3].startswith("lists.zip: was there already; sha256 as ")
    assert not archives.exists()


def test_it_goes_on_the_next_time(web, root):
    web.faults = [Fault(), Fault(send=11), *[Fault(503)] * 5]
    with pytest.raises(DataError, match="503"):
        download_data_set("birds", root)
    assert not root.exists()
    web.requests.clear()
    said = []
    download_data_set("birds", root, say=said.append)
    assert files_in(root) == UNPACKED
    asked = [request[:2] for request in web.requests]
    assert asked == [("/lists.zip", "bytes=11-"), ("/setid.mat", None)]
    assert said[2].startswith("images.tgz: was there already")


def test_retries_are_counted(web, root):
    web.faults = [Fault(503), Fault(send=5), Fault(send=7)]
    said = []
    download_data_set("birds", root, say=said.append)
    assert "images.tgz: downloaded, 3 retries; sha256 as the catalogue has it" in said


def test_the_first_download_is_trusted_and_later_ones_compared(web, root, tmp_path):
    download_data_set("birds", root)
    record = root.with_name("birds.sha256")
    assert record.read_text() == f"{hashlib.sha256(CONTENTS['/lists.zip']).hexdigest()}  lists.zip\n"
    root.rename(tmp_path / "moved")
    web.files["/lists.zip"] = zipped(train=b"2", test=b"1")
    with pytest.raises(DataError, match=rf"lists.zip: its sha256 is .*, not .* as {record}, from the first"):
        download_data_set("birds", root)
    assert not root.exists()
    record.unlink()
    download_data_set("birds", root)
    assert files_in(root)["lists/train"] == b"2"


def test_what_cannot_be_unpacked_is_not_trusted(web, root):
    web.files["/lists.zip"] = b"<html>please log in</html>"
    with pytest.raises(DataError, match=r"birds.archives/lists.zip is damaged .*; remove it and download it"):
        download_data_set("birds", root)
    assert not root.exists()
    assert not root.with_name("birds.sha256").exists()
    (root.with_name("birds.archives") / "lists.zip").unlink()
    web.files["/lists.zip"] = CONTENTS["/lists.zip"]
    download_data_set("birds", root)
    assert files_in(root) == UNPACKED


def test_the_record_is_what_sha256sum_reads(web, root):
    download_data_set("birds", root, keep_archives=True)
    folder = root.with_name("birds.archives")
    done = subprocess.run(
        ["sha256sum", "-c", "../birds.sha256"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stdout == "lists.zip: OK\n"


@pytest.mark.parametrize("line", ["", "abc  lists.zip", "0" * 64, "0" * 64 + "  ", "x"])
def test_a_record_that_is_none(web, root, line):
    root.parent.mkdir()
    root.with_name("birds.sha256").write_text(f"{'0' * 64}  other.zip\n{line}\n")
    with pytest.raises(DataError, match=r"birds.sha256, line 2: not a SHA-256 and a name"):
        download_data_set("birds", root)
    root.with_name("birds.sha256").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"birds.sha256 is no text; remove it"):
        download_data_set("birds", root)


def test_a_file_that_was_to_be_expected(web, root, monkeypatch):
    monkeypatch.setitem(REGISTRY, "birds", REGISTRY["birds"]._replace(holds=("images", "images/tit")))
    said = []
    download_data_set("birds", root, say=said.append)
    assert [line for line in said if "holds no" in line] == [
        f"{root} holds no images/tit: the publisher may have changed the set since we last looked"
    ]


@pytest.mark.parametrize("name", [name for name, entry in REGISTRY.items() if not entry.files])
def test_directions_where_there_is_no_download(root, name):
    with pytest.raises(DataError, match=rf"cannot be downloaded directly: .*--data.name {name}") as caught:
        download_data_set(name, root)
    assert REGISTRY[name].directions in str(caught.value)
    assert not root.parent.exists()


def test_a_folder_that_holds_something(web, root):
    root.mkdir(parents=True)
    (root / "mine").write_text("keep")
    with pytest.raises(OutputError, match="birds is not empty"):
        download_data_set("birds", root)
    assert files_in(root.parent) == {"birds/mine": b"keep"}
    assert web.requests == []


def test_an_empty_folder_or_a_link_to_one(web, root, tmp_path):
    (tmp_path / "large disk").mkdir()
    root.parent.mkdir()
    root.symlink_to(tmp_path / "large disk")
    download_data_set("birds", root)
    assert root.is_symlink()
    assert files_in(tmp_path / "large disk") == UNPACKED
    assert (tmp_path / "large disk.sha256").is_file()


def test_a_relative_folder(web, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    download_data_set("birds", published.Path("birds/"))
    assert files_in(tmp_path / "birds") == UNPACKED


def test_a_folder_that_cannot_be_made(web, root):
    root.parent.write_text("a file")
    with pytest.raises(OutputError, match=r"birds cannot be written: .*; give another folder"):
        download_data_set("birds", root)
    assert web.requests == []


def test_one_at_a_time(web, root):
    root.with_name("birds.archives").mkdir(parents=True)
    with FileLock(root.with_name("birds.archives") / ".lock"):
        with pytest.raises(OutputError, match=r"another download into .*birds is going on; wait"):
            download_data_set("birds", root)
        assert web.requests == []
    download_data_set("birds", root)
    assert files_in(root) == UNPACKED


def test_a_set_that_somebody_else_made_meanwhile_is_not_downloaded(web, root, monkeypatch):
    class Lock:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            root.mkdir()
            (root / "theirs").write_text("keep")

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(published, "FileLock", Lock)
    with pytest.raises(OutputError, match="birds is not empty"):
        download_data_set("birds", root)
    assert web.requests == []


class Usage:
    def __init__(self, free):
        self.free = free


def test_room_for_the_archives_and_for_what_is_in_them(web, root, monkeypatch):
    total = REGISTRY["birds"].num_bytes
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: Usage(2 * total - 1))
    with pytest.raises(OutputError, match="GB are needed"):
        download_data_set("birds", root)
    assert web.requests == []
    web.faults = [Fault(), Fault(send=11), *[Fault(503)] * 5]
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: Usage(2 * total))
    with pytest.raises(DataError):
        download_data_set("birds", root)
    monkeypatch.setattr(
        download.shutil, "disk_usage", lambda _: Usage(2 * total - len(CONTENTS["/images.tgz"]) - 11)
    )
    download_data_set("birds", root)
    assert files_in(root) == UNPACKED


def test_an_evil_archive_leaves_nothing(web, root, tmp_path):
    web.files["/lists.zip"] = zipped(**{"../../../stolen": b"x"})
    with pytest.raises(DataError, match=r"lists.zip was not unpacked: the path '../../../stolen' holds '..'"):
        download_data_set("birds", root)
    assert list(root.parent.iterdir()) == [root.with_name("birds.archives")]
    assert list(tmp_path.iterdir()) == [root.parent]

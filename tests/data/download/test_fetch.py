import errno
import hashlib
from pathlib import Path

import pytest

from ramstrans.data.download import fetch as download
from ramstrans.data.download.fetch import check_space, fetch
from ramstrans.errors import DataError, OutputError
from tests.data.download.served import CHECKSUMS, CONTENT, OTHER, WHOLE, assert_whole
from tests.data.web import Fault

# The good days


def test_a_file_comes(get, web, path):
    seen = []
    fetched = get(progress=lambda *call: seen.append(call))
    assert fetched == (path, CHECKSUMS["sha256"], 0, True)
    assert_whole(path)
    assert web.requests == [(WHOLE, None, None)]
    assert get.said == []
    assert seen[-1] == (len(CONTENT), len(CONTENT), "downloading photographs.tgz")
    assert seen == sorted(seen)


def test_nothing_need_be_known_of_it(get, path):
    assert get({}, None).sha256 == CHECKSUMS["sha256"]
    assert_whole(path)


def test_what_is_there_is_not_asked_for(get, web, path):
    get()
    assert get() == (path, CHECKSUMS["sha256"], 0, False)
    assert get({}, None).is_new is False
    assert len(web.requests) == 1


def test_what_is_there_but_wrong_is_replaced(get, path):
    for wrong, reason in ((CONTENT[:-1], "3000016 bytes, not 3000017"), (OTHER, "its md5 is ")):
        path.write_bytes(wrong)
        assert get().is_new
        assert_whole(path)
        assert reason in get.said[-1]
        assert "downloaded anew" in get.said[-1]


def test_an_empty_file(get, web, path):
    web.files[WHOLE] = b""
    assert get({}, 0).is_new
    assert_whole(path, b"")


def test_checksums_in_capitals(get, path):
    get({"sha256": CHECKSUMS["sha256"].upper()})
    assert_whole(path)


def test_a_redirect_is_followed_and_keeps_the_range(get, web, path):
    moved = Fault(302, {"Location": "/new"})
    web.files["/new"] = CONTENT
    web.faults = [moved, Fault(send=1_000_003), moved]
    assert get().num_retries == 1
    assert_whole(path)
    assert [request[:2] for request in web.requests[2:]] == [
        (WHOLE, "bytes=1000003-"),
        ("/new", "bytes=1000003-"),
    ]


# What must not be taken


@pytest.mark.parametrize("name", ["md5", "sha256"])
def test_a_wrong_checksum(get, web, path, name):
    web.files[WHOLE] = OTHER
    with pytest.raises(
        DataError, match=rf"its {name} is {hashlib.new(name, OTHER).hexdigest()}, not "
    ) as caught:
        get({name: CHECKSUMS[name]})
    assert CHECKSUMS[name] in str(caught.value)
    assert list(path.parent.iterdir()) == []
    assert len(web.requests) == 1


def test_every_checksum_must_be_right(get):
    with pytest.raises(DataError, match="its sha256 is "):
        get(CHECKSUMS | {"sha256": "0" * 64}, origin="the record")


def test_another_size_is_seen_before_it_comes(get, web, path):
    with pytest.raises(DataError, match=r"it has 3000017 bytes, not 5 as the catalogue has it"):
        get(num_bytes=5)
    assert not path.exists()


@pytest.mark.parametrize("extra", [b"", b"x" * 99])
def test_more_than_there_should_be_is_not_kept_coming(get, web, extra):
    web.always = Fault(body=CONTENT + extra, is_chunked=True)
    if not extra:
        assert get().is_new
        return
    with pytest.raises(DataError, match=r"more than its 3000017 bytes came"):
        get()


def test_less_than_there_should_be_without_a_length(get, web, path):
    """Of a server that says neither how long it is nor that it has ended early."""
    web.always = Fault(body=CONTENT[:-7], headers={"Content-Length": None}, ignore_range=True)
    with pytest.raises(DataError, match="the connection broke, 6 times"):
        get()
    assert not path.exists()


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_a_refusal_is_final_and_says_where_to_put_the_file(get, web, path, waits, code):
    web.always = Fault(code)
    with pytest.raises(
        DataError, match=rf"/birds/photographs.tgz.*answers {code} .*put it at {path} and run"
    ):
        get()
    assert waits == []
    assert list(path.parent.iterdir()) == []


def test_a_file_that_was_put_there_by_hand(get, web, path):
    web.always = Fault(403)
    path.write_bytes(CONTENT)
    assert not get().is_new


def test_an_answer_without_a_file(get, web):
    web.always = Fault(204)
    with pytest.raises(DataError, match="answers 204, with no file"):
        get()


def test_redirects_without_end_or_to_elsewhere(get, web, monkeypatch):
    web.always = Fault(302, {"Location": WHOLE})
    with pytest.raises(DataError, match="answers 302"):
        get()
    web.always = Fault(302, {"Location": "file:///etc/passwd"})
    with pytest.raises(DataError, match="answers 302"):
        get()


def test_no_way_from_https_to_http(get, web, path, monkeypatch):
    opened, asked = download.urlopen, []

    def redirected(request, timeout):
        asked.append(request.full_url)
        request.full_url = web.url(WHOLE)
        return opened(request, timeout=timeout)

    monkeypatch.setattr(download, "urlopen", redirected)
    with pytest.raises(DataError, match=r"it leads to http://127\.0\.0\.1.*not safe"):
        fetch("https://example.org/a", path)
    assert asked == ["https://example.org/a"]


# The disk


def test_no_room(get, web, path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: Usage(2_000_000))
    with pytest.raises(OutputError, match=r"has 0.0 GB free, 0.0 GB are needed; make room"):
        get()
    assert not path.exists()


class Usage:
    def __init__(self, free):
        self.free = free


def test_room_is_counted_in_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: Usage(10**9))
    check_space(tmp_path, 10**9)
    with pytest.raises(OutputError, match=r"has 1.0 GB free, 2.5 GB are needed"):
        check_space(tmp_path, 25 * 10**8)


def test_the_rest_needs_room_for_the_rest_only(stopped, get, path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: Usage(len(CONTENT) - 1_000_003))
    get()
    assert_whole(path)


def test_a_disk_that_fills_up_keeps_what_came(get, web, path, monkeypatch):
    opened = Path.open

    class Full:
        def __init__(self, stream):
            self.stream, self.left = stream, 5

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.stream.close()

        def write(self, chunk):
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.stream.write(chunk)

    def full(path, mode="r", *args, **options):
        stream = opened(path, mode, *args, **options)
        return Full(stream) if mode == "ab" else stream

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(OutputError, match=r"photographs.tgz cannot be written: No space left.*is kept"):
            get()
    size = path.with_name("photographs.tgz.part").stat().st_size
    assert 0 < size < len(CONTENT)
    get()
    assert_whole(path)
    assert web.requests[-1][1] == f"bytes={size}-"


def test_a_folder_that_is_not_there(web, tmp_path):
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        fetch(web.url(WHOLE), tmp_path / "nowhere" / "a")

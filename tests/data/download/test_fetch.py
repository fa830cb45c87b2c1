import errno
import hashlib
import random
import ssl
import urllib.error
from http.client import HTTPException
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ramstrans.data.download import fetch as module
from ramstrans.data.download.fetch import MAX_RETRIES, TIMEOUT, fetch
from ramstrans.data.download.registry import PublishedFile
from ramstrans.errors import DataError, OutputError
from tests.data.web import Fault

CONTENT = random.Random(0).randbytes(3_000_017)
OTHER = random.Random(1).randbytes(3_000_017)
CHECKSUMS = {name: hashlib.new(name, CONTENT).hexdigest() for name in ("md5", "sha256")}
PATH = "/birds/images.tgz?download=1"
CUT = 1_000_003


@pytest.fixture
def path(tmp_path):
    return tmp_path / "images.tgz"


@pytest.fixture
def part(tmp_path):
    return tmp_path / "images.tgz.part"


@pytest.fixture
def get(web, path, pauses, caplog):
    """`fetch` of the one file; `get.logged()` are the lines it logged."""
    caplog.set_level("INFO", "ramstrans")
    web.files[PATH] = CONTENT

    def get(checksums=CHECKSUMS, num_bytes=3_000_017, **options):
        return fetch(PublishedFile(web.url(PATH), num_bytes, checksums), path.parent, **options)

    get.logged = lambda: [record.getMessage() for record in caplog.records]
    return get


def assert_whole(path, content=CONTENT):
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_downloaded_once(get, web, path, pauses):
    seen = []
    assert get(progress=lambda *call: seen.append(call)) == path
    assert_whole(path)
    assert (len(CONTENT), len(CONTENT), "downloading images.tgz") in seen
    assert seen[-1] == (len(CONTENT), len(CONTENT), "checking images.tgz.part")
    get()
    assert (web.requests, pauses) == ([(PATH, None)], [])
    assert get.logged() == [
        "images.tgz: downloaded, md5 and sha256 as published",
        "images.tgz: already there",
    ]


def test_a_file_without_checksums(get, web, path):
    web.faults = [Fault(send=CUT)]
    get({}, 0)
    assert_whole(path)
    assert [requested for _, requested in web.requests] == [None, None]  # nothing would verify that they fit
    assert get.logged()[-1] == "images.tgz: downloaded, no checksum is published"


@pytest.mark.parametrize(
    ("wrong", "reason"), [(CONTENT[:-1], "3000016 bytes, not 3000017"), (OTHER, "its md5 is ")]
)
def test_a_file_that_is_there_but_wrong_is_replaced(get, path, wrong, reason):
    path.write_bytes(wrong)
    get()
    assert_whole(path)
    assert reason in get.logged()[0]


@pytest.mark.parametrize("name", ["md5", "sha256"])
def test_every_checksum_is_compared(get, web, path, name):
    with pytest.raises(DataError, match=rf"its {name} is {CHECKSUMS[name]}, not 00 as published"):
        get(CHECKSUMS | {name: "00"})
    assert list(path.parent.iterdir()) == []
    assert len(web.requests) == 1
    get({name: CHECKSUMS[name].upper()})


def test_another_size_is_refused_before_it_comes(get, part):
    with pytest.raises(DataError, match="it has 3000017 bytes, not 5 as published"):
        get(num_bytes=5)
    assert not part.exists()


def test_more_bytes_than_published_are_refused(get, web):
    web.always = Fault(body=CONTENT + b"x", headers={"Content-Length": None})
    with pytest.raises(DataError, match="it sends more than 3000017 bytes"):
        get()


def test_fewer_bytes_without_a_length_are_a_broken_connection(get, web, path):
    web.always = Fault(body=CONTENT[:-7], headers={"Content-Length": None}, ignore_range=True)
    with pytest.raises(DataError, match=r"the connection failed \(it ended early\), 6 times in a row"):
        get()
    assert not path.exists()


@pytest.mark.parametrize("code", [403, 404])
def test_a_refusal_is_final_and_a_file_put_there_by_hand_is_taken(get, web, path, pauses, code):
    web.always = Fault(code)
    with pytest.raises(DataError, match=rf"responds {code} .*put it at {path} and run this again"):
        get()
    assert (pauses, list(path.parent.iterdir())) == ([], [])
    path.write_bytes(CONTENT)
    assert get() == path


def test_redirects(get, web, path):
    moved = Fault(302, {"Location": "/new"})
    web.files["/new"] = CONTENT
    web.faults = [moved, Fault(send=CUT), moved]
    get()
    assert_whole(path)
    assert web.requests[2:] == [(PATH, f"bytes={CUT}-"), ("/new", f"bytes={CUT}-")]
    path.unlink()
    web.always = Fault(302, {"Location": "file:///etc/passwd"})
    with pytest.raises(DataError, match="responds 302"):
        get()


def test_no_redirect_from_https_to_http(web, tmp_path, monkeypatch):
    opened = module.urlopen
    web.files[PATH] = CONTENT
    monkeypatch.setattr(module, "urlopen", lambda _, timeout: opened(web.url(PATH), timeout=timeout))
    with pytest.raises(DataError, match=r"it redirects to http://127\.0\.0\.1.*not safe"):
        fetch(PublishedFile("https://example.org/a", 1, {}), tmp_path)


def test_it_resumes_where_the_connection_broke(get, web, path):
    web.faults = [Fault(send=CUT), Fault(send=1_000_009)]
    get()
    assert_whole(path)
    assert [requested for _, requested in web.requests] == [None, "bytes=1000003-", "bytes=2000012-"]
    assert "the connection failed (it ended early), 1000003 bytes so far; retry in 1 s" in get.logged()[0]


@pytest.mark.parametrize(
    "error",
    [
        HTTPException(),
        ssl.SSLError("unexpected EOF"),
        urllib.error.URLError("no such host"),
        ConnectionResetError(),
        TimeoutError(),
    ],
)
def test_every_failure_of_a_connection_is_retried(get, path, monkeypatch, error):
    opened, failures, timeouts = module.urlopen, [error], []

    def fails_once(request, timeout):
        timeouts.append(timeout)
        if failures:
            raise failures.pop()
        return opened(request, timeout=timeout)

    monkeypatch.setattr(module, "urlopen", fails_once)
    get()
    assert_whole(path)
    assert timeouts == [TIMEOUT, TIMEOUT]
    assert "the connection failed (" in get.logged()[0]
    assert "()" not in get.logged()[0]


def test_pauses_double_and_the_server_may_ask_for_longer_ones(get, web, pauses):
    web.always = Fault(503)
    with pytest.raises(DataError, match="503 Service Unavailable, 6 times in a row; check the network"):
        get()
    assert pauses == [1, 2, 4, 8, 16]
    assert len(web.requests) == MAX_RETRIES + 1
    pauses.clear()
    web.always = Fault()
    web.faults = [Fault(429, {"Retry-After": "7"}), Fault(503, {"Retry-After": "99999"})]
    web.faults += [Fault(503, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"})]
    get()
    assert pauses == [7, 300, 4]


def test_a_megabyte_forgives_earlier_failures_and_less_does_not(get, web, path, part):
    web.faults = [Fault(503)] * MAX_RETRIES + [Fault(send=1_100_000)] + [Fault(503)] * (MAX_RETRIES - 1)
    get()
    assert_whole(path)
    path.unlink()
    web.always = Fault(send=1009)
    with pytest.raises(DataError, match="6 times in a row"):
        get()
    assert part.read_bytes() == CONTENT[: 6 * 1009]


def test_a_later_call_resumes(get, web, path, part):
    part.write_bytes(CONTENT[:CUT])
    get()
    assert_whole(path)
    assert web.requests == [(PATH, f"bytes={CUT}-")]


def test_a_part_that_is_whole_is_not_requested(get, web, path, part):
    part.write_bytes(CONTENT)
    get()
    assert_whole(path)
    assert web.requests == []


@pytest.mark.parametrize("wrong", [OTHER[:CUT], OTHER, OTHER + b"x"])
def test_pieces_that_do_not_fit_are_downloaded_again(get, web, path, part, wrong):
    part.write_bytes(wrong)
    get()
    assert_whole(path)
    assert web.requests[-1] == (PATH, None)
    assert "starting over" in get.logged()[0]


@pytest.mark.parametrize("span", ["bytes 7-3000016/3000017", "", None])
def test_another_range_than_requested(get, web, path, part, span):
    part.write_bytes(CONTENT[:CUT])
    web.faults = [Fault(headers={"Content-Range": span})]
    get()
    assert_whole(path)
    assert [requested for _, requested in web.requests] == [f"bytes={CUT}-", None]


def test_a_server_that_cannot_resume(get, web, path, part):
    part.write_bytes(OTHER[:CUT])
    web.always = Fault(ignore_range=True)
    get()
    assert_whole(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(cuts=st.lists(st.integers(0, 20_011), max_size=4), size=st.integers(1, 20_011))
def test_whatever_the_cuts_the_file_is_the_same(get, web, path, cuts, size):
    web.files[PATH] = CONTENT[:size]
    web.faults = [Fault(send=cut) for cut in cuts]
    path.unlink(missing_ok=True)
    get({"sha256": hashlib.sha256(CONTENT[:size]).hexdigest()}, size)
    assert_whole(path, CONTENT[:size])
    web.faults.clear()


def test_a_disk_that_fills_up_keeps_what_came(get, web, path, part, monkeypatch):
    opened = Path.open

    def full(path, mode="r", *args, **options):
        stream = opened(path, mode, *args, **options)
        if mode in ("ab", "wb"):
            stream.write(CONTENT[:CUT])
            stream.close()
            raise OSError(errno.ENOSPC, "No space left on device")
        return stream

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(OutputError, match=r"images.tgz cannot be written \(No space left.*is kept"):
            get()
    assert part.stat().st_size == CUT
    get()
    assert_whole(path)
    assert web.requests[-1] == (PATH, f"bytes={CUT}-")

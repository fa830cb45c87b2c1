import errno
import hashlib
import json
import random
import socket
import ssl
import urllib.error
from http.client import HTTPException
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ramstrans.data.downloads import download
from ramstrans.data.downloads.download import MAX_RETRIES, check_space, fetch
from ramstrans.errors import DataError, OutputError
from tests.data.web import Fault, serving

CONTENT = random.Random(0).randbytes(3_000_017)
OTHER = random.Random(1).randbytes(3_000_017)
SIZE = len(CONTENT)
CHECKSUMS = {"md5": hashlib.md5(CONTENT).hexdigest(), "sha256": hashlib.sha256(CONTENT).hexdigest()}
WHOLE = "/birds/photographs.tgz?download=1"


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


def assert_whole(path, content=CONTENT):
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


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


# Broken connections


@pytest.mark.parametrize("is_chunked", [False, True])
def test_it_goes_on_where_it_broke(get, web, path, waits, is_chunked):
    web.faults = [Fault(send=1_000_003, is_chunked=is_chunked), Fault(send=500_009)]
    fetched = get()
    assert (fetched.sha256, fetched.num_retries) == (CHECKSUMS["sha256"], 2)
    assert_whole(path)
    ranges = [asked for _, asked, _ in web.requests]
    if not is_chunked:  # of a broken chunk some may be lost
        assert ranges == [None, "bytes=1000003-", "bytes=1500012-"]
    assert all(condition == f'"{CHECKSUMS["md5"]}"' for _, _, condition in web.requests[1:])
    assert len(waits) == 2
    assert "retry 1 in 1 s" in get.said[0]


@pytest.mark.parametrize("send", [0, 1, 1_000_003])
def test_silence_is_a_broken_connection(get, web, path, send):
    web.faults = [Fault(send=send, wait=30)]
    assert get(timeout=0.2).num_retries == 1
    assert_whole(path)
    assert "timed out" in get.said[0]


def test_a_slow_server_is_waited_for(get, web, path):
    web.faults = [Fault(send=0, wait=0.3)]
    web.files[WHOLE] = b""
    assert get({}, 0, timeout=5).num_retries == 0


def test_the_wait_doubles_and_the_count_is_told(get, web, waits):
    web.always = Fault(503)
    with pytest.raises(
        DataError, match=r"503 Service Unavailable, 6 times in a row; check the network and run"
    ):
        get()
    assert waits == [1, 2, 4, 8, 16]
    assert len(web.requests) == MAX_RETRIES + 1
    assert [line.split("; ")[1] for line in get.said] == [f"retry {i + 1} in {2**i} s" for i in range(5)]


def test_a_server_may_say_how_long_to_wait(get, web, waits):
    web.faults = [Fault(429, {"Retry-After": "7"}), Fault(503, {"Retry-After": "99999"})]
    web.faults += [
        Fault(503, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}),
        Fault(500, {"Retry-After": "-1"}),
    ]
    assert get().num_retries == 4
    assert waits == [7, 300, 4, 8]


def test_progress_forgives_earlier_failures(get, web, path):
    """More failures in all than are allowed in a row."""
    web.faults = [Fault(503)] * MAX_RETRIES + [Fault(send=1_100_000)] + [Fault(503)] * (MAX_RETRIES - 1)
    assert get().num_retries == 2 * MAX_RETRIES
    assert_whole(path)


def test_crumbs_are_no_progress(get, web, path):
    web.always = Fault(send=1009)
    with pytest.raises(DataError, match=r"6 times in a row.*\(6054 bytes have come\)"):
        get()
    assert path.with_name("photographs.tgz.part").read_bytes() == CONTENT[:6054]


def test_no_server(tmp_path, waits, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(DataError, match=rf"127.0.0.1:{port}/a: no connection \(.*refused\), 6 times"):
        fetch(f"http://127.0.0.1:{port}/a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [HTTPException(), urllib.error.URLError("no such host"), ConnectionResetError()]
)
def test_every_failure_of_a_connection_is_tried_again(get, path, monkeypatch, error):
    opened, failures = download.urlopen, [error]

    def fails_once(*args, **options):
        if failures:
            raise failures.pop()
        return opened(*args, **options)

    monkeypatch.setattr(download, "urlopen", fails_once)
    assert get().num_retries == 1
    assert "no connection (" in get.said[0]
    assert "()" not in get.said[0]


def test_an_untrusted_certificate_is_not_tried_again(get, monkeypatch, waits):
    def untrusted(*_, **__):
        raise urllib.error.URLError(ssl.SSLCertVerificationError("self-signed"))

    monkeypatch.setattr(download, "urlopen", untrusted)
    with pytest.raises(DataError, match="its certificate cannot be trusted"):
        get()
    assert waits == []


# The next day


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


def test_a_stopped_download_goes_on(stopped, get, web, path):
    seen = []
    assert get(progress=lambda *call: seen.append(call)).num_retries == 0
    assert_whole(path)
    assert web.requests == [(WHOLE, "bytes=1000003-", f'"{CHECKSUMS["md5"]}"')]
    assert (1_000_003, 1_000_003, "checking photographs.tgz.part") in seen
    assert seen[-1] == (len(CONTENT), len(CONTENT), "downloading photographs.tgz")


def test_a_file_that_changed_meanwhile_comes_from_the_start(stopped, get, web, path):
    web.files[WHOLE] = OTHER
    assert get({}, None).sha256 == hashlib.sha256(OTHER).hexdigest()
    assert_whole(path, OTHER)
    assert "from the start" in get.said[0]


def test_a_server_that_cannot_resume(stopped, get, web, path):
    web.always = Fault(ignore_range=True)
    assert get().num_retries == 0
    assert_whole(path)
    assert "from the start" in get.said[0]


def test_a_server_that_ignores_the_condition(stopped, get, web, path):
    """It sends the rest of another file: its entity tag tells."""
    web.files[WHOLE] = OTHER
    web.always = Fault(ignore_condition=True)
    assert get({}, None).num_retries == 1
    assert_whole(path, OTHER)
    assert "something else than the rest" in get.said[0]


def test_pieces_that_do_not_fit_are_thrown_away_once(stopped, get, web, path):
    """Not even the entity tag tells; the checksum does."""
    part = path.with_name("photographs.tgz.part")
    part.write_bytes(OTHER[:1_000_003])
    assert get().num_retries == 1
    assert_whole(path)
    assert "downloaded anew" in get.said[0]
    assert [asked for _, asked, _ in web.requests] == ["bytes=1000003-", None]


def test_pieces_of_one_call_that_do_not_fit(get, web, path):
    """Two servers behind one address, of which one has another file."""
    web.faults = [Fault(body=OTHER, send=1_000_003)]
    assert get().num_retries == 2
    assert_whole(path)
    assert [asked for _, asked, _ in web.requests] == [None, "bytes=1000003-", None]


def test_a_shorter_file_meanwhile(stopped, get, web, path):
    web.files[WHOLE] = CONTENT[:999]
    web.always = Fault(ignore_condition=True)
    assert get({}, None).num_retries == 1
    assert_whole(path, CONTENT[:999])


@pytest.mark.parametrize(
    "answer", ["bytes 7-3000016/3000017", "bytes 1000003-3000016/*", "", "bytes x", None]
)
def test_another_range_than_asked_for(stopped, get, web, path, answer):
    web.faults = [Fault(headers={"Content-Range": answer})]
    assert get().num_retries == 1
    assert_whole(path)


def test_what_is_whole_but_was_not_renamed(stopped, get, web, path):
    path.with_name("photographs.tgz.part").write_bytes(CONTENT)
    get()
    assert_whole(path)
    assert web.requests == []


@pytest.mark.parametrize(
    "note",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"url": "elsewhere", "validator": "x", "total": 3000017}',
        '{"url": "URL", "validator": null, "total": 3000017}',
        '{"url": "URL", "validator": "x", "total": "3"}',
        '{"url": "URL", "validator": "x", "total": 5}',
        None,
    ],
)
def test_a_part_that_nobody_knows_the_origin_of(stopped, get, web, path, note):
    file = path.with_name("photographs.tgz.part.json")
    file.unlink() if note is None else file.write_text(note.replace("URL", web.url(WHOLE)))
    get()
    assert_whole(path)
    assert web.requests == [(WHOLE, None, None)]


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"ETag": None}, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ({"ETag": 'W/"weak"'}, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ({"ETag": None, "Last-Modified": None}, None),
    ],
)
def test_what_a_file_is_known_again_by(get, web, path, headers, validator):
    web.faults = [Fault(headers=headers, send=1_000_003)]
    get()
    assert_whole(path)
    assert web.requests[1][2] == validator
    if validator is None:
        assert "from the start" in get.said[-1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 20_011), max_size=4), size=st.integers(0, 20_011))
def test_whatever_the_cuts_the_file_is_the_same(get, web, path, cuts, size):
    web.files[WHOLE] = CONTENT[:size]
    web.faults = [Fault(send=cut) for cut in cuts]
    path.unlink(missing_ok=True)
    expected = hashlib.sha256(CONTENT[:size]).hexdigest()
    assert get({"sha256": expected}, size).sha256 == expected
    assert_whole(path, CONTENT[:size])
    web.faults.clear()


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
    with pytest.raises(DataError, match=r"it has 3000017 bytes, not 5 as its publisher has it"):
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


def test_the_note_says_what_it_is_of(stopped, web, path):
    note = json.loads(path.with_name("photographs.tgz.part.json").read_text())
    assert note == {"url": web.url(WHOLE), "validator": f'"{CHECKSUMS["md5"]}"', "total": len(CONTENT)}

import hashlib
import json
import socket
import ssl
import urllib.error
from http.client import HTTPException

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ramstrans.data.download import fetch as download
from ramstrans.data.download.fetch import MAX_RETRIES, fetch
from ramstrans.errors import DataError
from tests.data.download.served import CHECKSUMS, CONTENT, OTHER, WHOLE, assert_whole
from tests.data.web import Fault

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
    assert get(timeout=0.2).num_retries >= 1  # more on a machine that is busy itself
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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(cuts=st.lists(st.integers(0, 20_011), max_size=4), size=st.integers(0, 20_011))
def test_whatever_the_cuts_the_file_is_the_same(get, web, path, cuts, size):
    web.files[WHOLE] = CONTENT[:size]
    web.faults = [Fault(send=cut) for cut in cuts]
    path.unlink(missing_ok=True)
    expected = hashlib.sha256(CONTENT[:size]).hexdigest()
    assert get({"sha256": expected}, size).sha256 == expected
    assert_whole(path, CONTENT[:size])
    web.faults.clear()


def test_the_note_says_what_it_is_of(stopped, web, path):
    note = json.loads(path.with_name("photographs.tgz.part.json").read_text())
    assert note == {"url": web.url(WHOLE), "validator": f'"{CHECKSUMS["md5"]}"', "total": len(CONTENT)}

"""A real server process, and its end."""

import http.client
import math
import os
import re
import signal
import socket
import threading

import pytest

from tests.inference.builders import draw, make_folder
from tests.processes import start

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from ramstrans.errors import UsageError
from ramstrans.serve.limits import Limits
from ramstrans.serve.server import bind, url_of
from tests.serve.builders import JPEG

ADDRESS = re.compile(r"answers at http://127\.0\.0\.1:(\d+)")


def test_a_free_port_is_found_and_a_taken_one_refused():
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(
            UsageError, match=rf"--port {port} cannot be listened on \(Address already in use\)"
        ):
            bind("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(UsageError, match=r"--host 192\.0\.2\.1 --port 80"):
        bind("192.0.2.1", 80)
    with pytest.raises(UsageError, match=r"--host my\.\.host --port 80 .*no host has such a name"):
        bind("my..host", 80)


@pytest.mark.parametrize("field", ["timeout", "max_wait"])
def test_times_have_an_end(field):
    Limits().check()
    with pytest.raises(UsageError, match=f"--{field} is inf; give seconds, e.g. "):
        Limits(**{field: math.inf}).check()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_the_url_of_an_ipv6_address():
    class Listener:
        @staticmethod
        def getsockname():
            return "::1", 8000, 0, 0

    assert url_of(Listener()) == "http://[::1]:8000"


def post(connection, content):
    connection.request("POST", "/predict?top_k=7", content, JPEG)
    response = connection.getresponse()
    return response.status, response.read()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_no_request(tmp_path, number):
    run, content = make_folder(tmp_path / "run"), draw(tmp_path / "a.jpg", 300, 200).read_bytes()
    child = start("serve", run, "--port", "0", "--device", "cpu")
    errors = child.folder / "stderr"
    child.wait_for(lambda: ADDRESS.search(errors.read_text()))
    port = int(ADDRESS.search(errors.read_text())[1])
    results, refused = [], []

    def client():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            if connection.sock is None:
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    refused.append(1)
                    return
            try:
                results.append(post(connection, content)[0])
            except (OSError, http.client.HTTPException) as error:
                results.append(repr(error))
                return
            if len(results) == 60:
                os.kill(child.pid, number)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    finished = child.wait()
    assert set(results) == {200}
    assert len(refused) == 8
    assert finished.returncode == 0
    assert finished.stderr.splitlines()[-1] == "stopped"

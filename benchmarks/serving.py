"""Is a server as fast as `ramstrans predict`, are its answers the same, and does it lose requests at its end?

    python -m benchmarks.serving RUN PHOTOGRAPHS --clients 1 8 64 --rounds 5 --seconds 6

starts `ramstrans serve RUN` and sends photographs to it from this process; each client waits for its answer
before it sends the next. A third process predicts the same photographs without a server, as `ramstrans
predict` does, or for an exported folder its predict.py. Both take turns, so that what else the machine does
meets both; the ratio is the median over rounds. `--stop 3` sends SIGTERM under the load of 64 clients, three
times.
"""

import argparse
import http.client
import itertools
import json
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

WARM_UP = 16
"""Photographs before a measurement."""

TOLERANCE = 1.0e-6
"""Of probabilities, which are written with six digits."""


class Call(NamedTuple):
    """One request: the photograph, seconds, and the answer; status 0 and a reason where there was none."""

    index: int
    seconds: float
    status: int
    body: bytes


class Turn(NamedTuple):
    """A turn of the server or of the offline process: images per second, CPU seconds per image."""

    rate: float
    cpu: float


def main() -> None:
    """Measure, and print a line per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6, help="of a turn")
    parser.add_argument("--num_images", type=int, default=128)
    parser.add_argument("--stop", type=int, default=0, help="stop so many servers under load")
    parser.add_argument(
        "--options", nargs="*", default=[], help="of the server, e.g. --options=--max_batch=8"
    )
    parser.add_argument("--offline", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    paths = sorted(path for path in options.photographs.rglob("*") if path.is_file())
    paths = paths[:: max(len(paths) // options.num_images, 1)][: options.num_images]
    if options.offline:
        predict_offline(options.run, paths, options.seconds)
        return
    if options.rounds:
        measure(options, [path.read_bytes() for path in paths])
    for _ in range(options.stop):
        stop_under_load(options, [path.read_bytes() for path in paths])


def measure(options: argparse.Namespace, photographs: list[bytes]) -> None:
    """Let the offline process and the server with each number of clients take turns."""
    turns: dict[int, list[Turn]] = {clients: [] for clients in (0, *options.clients)}
    calls: dict[int, list[Call]] = {clients: [] for clients in options.clients}
    with offline(options) as (worker, expected), server(options.run, *options.options) as (process, port):
        load(port, photographs, 4, count=WARM_UP)
        for _ in range(options.rounds):
            turns[0].append(Turn(*map(float, ask(worker))))
            for clients in options.clients:
                started, cpu = time.perf_counter(), cpu_seconds(process.pid)
                now = load(port, photographs, clients, seconds=options.seconds)
                seconds, cpu = time.perf_counter() - started, cpu_seconds(process.pid) - cpu
                turns[clients].append(Turn(len(now) / seconds, cpu / len(now)))
                calls[clients] += now
        memory = psutil.Process(process.pid).memory_info().rss / 1e6
    for clients, of_clients in turns.items():
        ratios = [turn.rate / before.rate for turn, before in zip(of_clients, turns[0], strict=True)]
        print(
            f"{clients or 'offline'}: {statistics.median(turn.rate for turn in of_clients):.1f} images/s, "
            f"{statistics.median(ratios):.2f} of offline ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"{1000 * statistics.median(turn.cpu for turn in of_clients):.0f} CPU ms per image"
        )
        if clients:
            report(calls[clients], expected)
    print(f"memory of the server: {memory:.0f} MB")


def cpu_seconds(pid: int) -> float:
    """CPU seconds that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def report(calls: list[Call], expected: list[dict[str, Any]]) -> None:
    """Print latencies and how many answers are those of offline."""
    seconds = sorted(1000 * call.seconds for call in calls)
    p50, p99 = seconds[len(seconds) // 2], seconds[int(0.99 * len(seconds))]
    answered = [call for call in calls if call.status == 200]
    rows = [(json.loads(call.body)["predictions"][0], expected[call.index]) for call in answered]
    same = sum(is_same(row, other) for row, other in rows)
    to_the_digit = sum(all(row[key] == other[key] for key in other if key != "path") for row, other in rows)
    print(
        f"    p50 {p50:.0f} ms, p99 {p99:.0f} ms, {len(calls)} requests, {len(calls) - len(answered)} not "
        f"answered by 200, {same} equal, {to_the_digit} to the last digit"
    )


def is_same(row: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether labels and boxes are equal, and probabilities to 1e-6, which is one in the last digit."""
    pairs = [(row, expected), *zip(row["scales"], expected["scales"], strict=True)]
    return all(
        one["labels"] == other["labels"]
        and one.get("box") == other.get("box")
        and all(
            abs(p - q) <= 1.5 * TOLERANCE
            for p, q in zip(one["probabilities"], other["probabilities"], strict=True)
        )
        for one, other in pairs
    )


def load(
    port: int, photographs: list[bytes], clients: int, seconds: float = 1e9, count: int = 10**9
) -> list[Call]:
    """Send photographs from some threads, one connection each, for some time or until so many are sent."""
    numbers, calls, last = itertools.count(), [], time.perf_counter() + seconds

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while (number := next(numbers)) < count and time.perf_counter() < last:
            calls.append(call(connection, number % len(photographs), photographs))
            if calls[-1].status == 0:
                break
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return calls


def call(connection: http.client.HTTPConnection, index: int, photographs: list[bytes]) -> Call:
    """One request; `refused` if no connection was accepted; anything else of status 0 is a lost request."""
    started = time.perf_counter()
    try:
        if connection.sock is None:
            connection.connect()
    except ConnectionRefusedError:
        return Call(index, 0, 0, b"refused")
    try:
        connection.request("POST", "/predict", photographs[index], {"Content-Type": "image/jpeg"})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        return Call(index, time.perf_counter() - started, 0, repr(error).encode())
    return Call(index, time.perf_counter() - started, response.status, body)


def stop_under_load(options: argparse.Namespace, photographs: list[bytes]) -> None:
    """SIGTERM while 64 clients send: every request on an accepted connection must have its answer."""
    with server(options.run, *options.options) as (process, port):
        timer = threading.Timer(5, process.send_signal, (signal.SIGTERM,))
        timer.start()
        calls = load(port, photographs, 64)
        code = process.wait(120)
    statuses = Counter(call.status for call in calls if call.status)
    refused = sum(call.body == b"refused" for call in calls)
    lost = [call for call in calls if not call.status and call.body != b"refused"]
    print(
        f"SIGTERM: answers {dict(statuses)}, {refused} refused, {len(lost)} lost {lost[:3]}, exit code {code}"
    )


@contextmanager
def server(run: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server of its own process, and its port."""
    line = [sys.executable, "-m", "ramstrans", "serve", str(run), "--port", "0", *options]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for text in process.stderr:
            if found := re.search(r"answers at http://127\.0\.0\.1:(\d+)", text):
                break
            print(text, end="")
        else:
            raise SystemExit("the server did not start")
        yield process, int(found[1])
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


@contextmanager
def offline(
    options: argparse.Namespace,
) -> Iterator[tuple[subprocess.Popen[str], list[dict[str, Any]]]]:
    """A process that predicts without a server for some time when it is asked, and its rows."""
    line = [
        sys.executable,
        "-m",
        "benchmarks.serving",
        str(options.run),
        str(options.photographs),
        "--offline",
    ]
    line += ["--seconds", str(options.seconds), "--num_images", str(options.num_images)]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def ask(process: subprocess.Popen[str]) -> list[str]:
    """Let the offline process take its turn; rate and CPU seconds per image."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return process.stdout.readline().split()


def predict_offline(run: Path, paths: list[Path], seconds: float) -> None:
    """Print the rows of all photographs; for each line of standard input predict for some time."""
    from ramstrans.export.runner import format_of
    from ramstrans.inference.writers import to_json

    if format_of(run):
        from ramstrans.export.standalone import Standalone

        stream = Standalone(run).stream
    else:
        from ramstrans.inference.predictor import Predictor

        stream = Predictor.load(run, "cpu").stream
    print(json.dumps([to_json(prediction) for prediction in stream(paths)]), flush=True)
    for _ in sys.stdin:
        started, cpu, done = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - started < seconds - 1:  # whole passes, so that no batch is half counted
            done += sum(1 for _ in stream(paths))
        rate = done / (time.perf_counter() - started)
        print(rate, (time.process_time() - cpu) / done, flush=True)


if __name__ == "__main__":
    main()

"""`train` as a comparison sees it: writes the files of a run; may wait, fail or be stopped.

FAKE_WAIT: a file that it waits for. FAKE_FAIL: seeds that fail. FAKE_COUNT: a folder for a file per start.
"""

import os
import signal
import sys
import time
from pathlib import Path


def value(name, words):
    found = [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]
    return found[0] if found else words[words.index(name) + 1] if name in words else None


def stopped(*_):
    sys.exit("ramstrans: stopped by SIGTERM; go on with --resume")


def main(words):
    folder = Path(value("--output", words) or value("--resume", words))
    signal.signal(signal.SIGTERM, stopped)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text("seed: 0\n")
    (folder / "metrics.jsonl").touch()
    if "FAKE_COUNT" in os.environ:
        (Path(os.environ["FAKE_COUNT"]) / f"{folder.name}-{os.getpid()}").write_text(" ".join(words))
    print("epoch 1/1", flush=True)  # noqa: T201
    while "FAKE_WAIT" in os.environ and not Path(os.environ["FAKE_WAIT"]).exists():
        time.sleep(0.01)
    if folder.name.endswith(
        tuple(f"seed{seed}" for seed in os.environ.get("FAKE_FAIL", "").split(",") if seed)
    ):
        sys.exit("a traceback\nramstrans: the disk is full")
    (folder / "report.json").write_text('{"fused": {"top1": 50.0}}')


if __name__ == "__main__":
    main(sys.argv[1:])

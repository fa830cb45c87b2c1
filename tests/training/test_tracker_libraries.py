"""What the libraries of `--tracker` hold of a run that fails, is resumed, and goes on: each is asked itself.

They are extras that `test` leaves out; .ci/run installs all but trackio, which holds back Pillow.
"""

import json
import struct
from collections import defaultdict
from typing import NamedTuple

import pytest

from ramstrans.cli import main
from ramstrans.errors import TrainingError
from ramstrans.training import loop
from ramstrans.training import run as module
from ramstrans.training.log import numbers_of
from tests.tiny import write_config

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the libraries' own


class Tracked(NamedTuple):
    """A run as a tracker has it.

    Attributes:
        name: Of the run.
        options: By name, as text.
        numbers: name -> {step: the latest value}.
        ended: How it ended, in the tracker's words, each time; empty if it keeps none.
    """

    name: str
    options: dict
    numbers: dict
    ended: list


def latest(rows):
    """Numbers by name and step, from dicts with a step each, in order."""
    numbers = defaultdict(dict)
    for step, row in rows:
        for name, value in row.items():
            numbers[name][step] = value
    return dict(numbers)


def records_of_wandb(path):
    """Records of an offline file: a log of LevelDB, in blocks of 32 kB behind a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2 as protocol

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _checksum, length, part = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if part in {1, 4}:  # whole, or the last part
            record = protocol.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def items(entries):
    return {"/".join(entry.nested_key) or entry.key: json.loads(entry.value_json) for entry in entries}


def read_wandb(run):
    import wandb

    wandb.teardown()  # waits until its other process has written everything
    rows, options, ended, known = [], {}, [], set()
    for path in sorted((run / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
        for record in records_of_wandb(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                known.add((record.run.run_id, record.run.display_name, record.run.project))
            elif kind == "config":
                options |= items(record.config.update)
            elif kind == "exit":
                ended.append(record.exit.exit_code)
            elif kind == "history":
                rows.append((record.history.step.num, items(record.history.item)))
    ((_, name, project),) = known  # one id, so that `wandb sync` makes one run of all folders
    assert project == "ramstrans"
    return Tracked(name, {key: str(value) for key, value in options.items()}, latest(rows), ended)


def read_mlflow(_run):
    from mlflow import MlflowClient

    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("ramstrans").experiment_id])
    numbers = {
        name: {point.step: point.value for point in client.get_metric_history(run.info.run_id, name)}
        for name in run.data.metrics
    }
    return Tracked(run.info.run_name, run.data.params, numbers, [run.info.status])


def read_trackio(_run):
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = trackio.Api().runs("ramstrans")
    rows = [(row.pop("step"), row) for row in SQLiteStorage.get_logs("ramstrans", run.name)]
    return Tracked(run.name, {name: str(value) for name, value in run.config.items()}, latest(rows), [])


READERS = {"wandb": read_wandb, "mlflow": read_mlflow, "trackio": read_trackio}
ENDED = {
    "wandb": ([1], [1, 0], [1, 0, 0]),
    "mlflow": (["FAILED"], ["FINISHED"], ["FINISHED"]),
    "trackio": ([], [], []),
}
"""How the run ended, after each of the three commands."""


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Where the libraries keep their files; they read these variables when they are imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))


def broken(*_):
    raise TrainingError("the evaluation breaks")


@pytest.mark.parametrize("name", READERS)
def test_a_tracker_has_the_whole_run(name, places, birds, tmp_path, monkeypatch, no_pictures, capsys):
    pytest.importorskip(name, reason=f'pip install "ramstrans[{name}]"')
    training = {"epochs": 2, "batch_size": 4, "optimizer": "adamw"}
    config, run = write_config(tmp_path / "tiny.yaml", birds, training=training), tmp_path / "jays"
    further = ["train", "--resume", str(run), "--training.epochs", "3"]
    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate_test", broken)
        assert main(["train", "--config", str(config), "--tracker", name, "--output", str(run)]) == 1
    for command, ended in zip((None, further[:3], further), ENDED[name], strict=True):
        assert command is None or main(command) == 0
        tracked = READERS[name](run)
        assert (tracked.name, tracked.ended) == ("jays", ended)
        assert {"data.root": str(birds), "training.batch_size": "4"}.items() <= tracked.options.items()
        expected = defaultdict(dict)
        for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
            step = row.get("step", 3 * row["epoch"])  # of 9 images, an epoch has 3 batches of 4
            for key, value in numbers_of(row).items():
                expected[key][step] = value
        if command:
            report = json.loads((run / "report.json").read_text())
            expected["test/top1_scale_2"][report["steps"]] = report["scales"][1]["top1"]
            expected["test/top1_fused"][report["steps"]] = report["fused"]["top1"]
        for key, points in expected.items():
            assert tracked.numbers[key].items() >= points.items(), key
    assert expected.keys() >= {"train/loss_scale_2", "validation/top1_scale_1", "train/lr"}
    assert name not in capsys.readouterr().out.replace(str(tmp_path), "").lower()  # results alone

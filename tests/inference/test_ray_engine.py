import json
import os
import sys
import time

import pytest
from pyarrow import parquet

from ramstrans.cli import main
from ramstrans.inference import ray_engine
from tests import processes
from tests.inference.builders import draw


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for index in range(41):
        draw(folder / f"{index:02}.png", 97, 71, seed=index)
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_without_ray_it_says_what_to_install(run, photographs, tmp_path, fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    line = fails(2, "predict", run, photographs, "--engine", "ray", "--output", tmp_path / "out")
    assert line == 'ramstrans: --engine ray needs Ray: pip install "ramstrans[ray]"'
    assert not (tmp_path / "out").exists()


def test_the_output_is_a_folder_of_parquet(run, fails, tmp_path):
    file = ["--output", tmp_path / "a.csv"]
    for more in ([], file, ["--output", tmp_path / "a", "--format", "csv"]):
        line = fails(2, "predict", run, "a.jpg", "--engine", "ray", *more)
        assert line == "ramstrans: --engine ray writes Parquet files into a folder; give --output FOLDER"
    assert not list(tmp_path.glob("a*"))


def test_options_of_ray_warn_without_it(run, photographs, caplog):
    assert main(["predict", str(run), str(photographs / "00.png"), "--workers", "2", "--device", "cpu"]) == 0
    assert "--workers is ignored without --engine ray" in caplog.text


def test_a_worker_predicts_the_partitions_of_a_batch(run, photographs, tmp_path):
    from ramstrans.inference import BatchPredictor
    from ramstrans.inference.partitions import partitions_of

    partitions = partitions_of(sorted(photographs.iterdir()), 30)
    worker = ray_engine.PartitionWorker(BatchPredictor(run, device="cpu"), tmp_path)
    counts = worker({"partition": [partition.to_json() for partition in partitions]})
    assert counts == {"partition": [0, 1], "num_rows": [30, 12], "num_unreadable": [0, 1]}


def arguments(run, photographs, output):
    words = ["predict", run, photographs, "--engine", "ray", "--output", output, "--device", "cpu"]
    return [str(word) for word in [*words, "--workers", "2", "--partition_rows", "4", "--batch_size", "2"]]


@pytest.mark.slow
def test_killed_and_started_again_it_has_every_row_once(run, photographs, tmp_path):
    pytest.importorskip("ray", reason='pip install "ramstrans[ray]"')
    output, single = tmp_path / "out", tmp_path / "single.parquet"
    command = arguments(run, photographs, output)
    begun = processes.start(*command)
    while begun.running() and len(list(output.glob("part-*"))) < 2:
        time.sleep(0.01)
    begun.process.kill()  # alone: those that Ray started must notice
    begun.wait()
    killed = {path: path.stat().st_mtime_ns for path in output.glob("part-*")}
    assert killed
    if not (output / "_SUCCESS").exists():
        done = processes.run(*command, "--workers", 1)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "going on after" in done.stderr
        assert "42 images in 11 partitions, 1 of them unreadable" in done.stderr
    assert all(path.stat().st_mtime_ns == moment for path, moment in killed.items())
    assert json.loads((output / "_SUCCESS").read_text()) == {"num_rows": 42, "num_unreadable": 1}
    words = ["predict", str(run), str(photographs), "--output", str(single), "--device", "cpu"]
    assert main([*words, "--batch_size", "2"]) == 0
    assert parquet.read_table(output).to_pylist() == [
        row | {"path": os.path.abspath(row["path"])}  # noqa: PTH100
        for row in parquet.read_table(single).to_pylist()
    ]


def test_no_cluster_is_one_line(run, photographs, tmp_path, fails):
    pytest.importorskip("ray", reason='pip install "ramstrans[ray]"')
    words = arguments(run, photographs, tmp_path / "out")
    line = fails(2, *words, "--address", "127.0.0.1:9")
    assert line.startswith("ramstrans: --address 127.0.0.1:9: Ray cannot be reached (")
    assert line.endswith("; start it with `ray start --head`, or leave --address out")
    assert not (tmp_path / "out").exists()

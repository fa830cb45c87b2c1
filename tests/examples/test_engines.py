"""Every script of `examples/` gives what the predictor gives, with the engine that it is for."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from ramstrans.inference import BatchPredictor
from tests.inference.builders import draw, make_folder

EXAMPLES = Path(__file__).parents[2] / "examples"
ENGINES = {"daft": "daft", "spark": "pyspark"}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_gives_the_rows_of_the_predictor(engine, tmp_path):
    if find_spec(ENGINES[engine]) is None:
        pytest.skip(f"pip install {ENGINES[engine]}")
    run, photographs = make_folder(tmp_path / "run"), tmp_path / "photographs.parquet"
    paths = [str(draw(tmp_path / f"{index}.png", 97, 71, seed=index)) for index in range(5)]
    paths.insert(2, str(tmp_path / "missing.png"))
    parquet.write_table(pyarrow.table({"path": paths}), photographs)
    script = EXAMPLES / f"{engine}_predict.py"
    done = subprocess.run(
        [sys.executable, str(script), str(run), str(photographs), str(tmp_path / "out")],
        capture_output=True, text=True, check=False, timeout=200, cwd=tmp_path,
        env=os.environ | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row["path"]: row for row in parquet.read_table(tmp_path / "out").to_pylist()}
    expected = BatchPredictor(run)({"path": paths})
    assert sorted(rows) == sorted(paths)
    for index, path in enumerate(paths):
        row = rows[path]
        assert row["error"] == expected["error"][index]
        assert row["label_1"] == expected["label_1"][index]
        assert row["probability_1"] == pytest.approx(expected["probability_1"][index], abs=2e-6)


def test_there_is_one_for_each_engine():
    names = sorted(path.stem.removesuffix("_predict") for path in EXAMPLES.glob("*_predict.py"))
    assert names == sorted(ENGINES)

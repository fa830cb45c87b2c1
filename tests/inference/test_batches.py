import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pytest

from ramstrans.errors import UsageError
from ramstrans.inference import BatchPredictor
from ramstrans.inference import batches as module
from ramstrans.inference.batches import items_of
from ramstrans.inference.predictor import Predictor
from ramstrans.inference.writers import to_row
from tests.inference.builders import NAMES, draw


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    (folder / "broken.png").write_bytes(b"no image")
    drawn = [draw(folder / f"{i}.png", 97 + i, 71, seed=i) for i in range(5)]
    return [str(path) for path in (*drawn[:2], folder / "broken.png", *drawn[2:])]


@pytest.fixture
def predictor(run):
    return BatchPredictor(run, top_k=2, batch_size=3, device="cpu")


@pytest.fixture
def expected(run, paths):
    return [to_row(prediction, 2) for prediction in Predictor.load(run, "cpu")(paths, top_k=2, batch_size=3)]


def rows_of(columns):
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


KINDS = {"list": list, "numpy": np.array, "pandas": pd.Series, "arrow": pyarrow.array}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_paths_give_the_rows_of_predict(predictor, paths, expected, kind):
    columns = predictor({"path": kind(paths), "other": list(range(6))})
    assert list(columns) == predictor.schema.names
    assert rows_of(columns) == expected
    assert pyarrow.table(columns, predictor.schema).num_rows == 6
    assert [error is None for error in columns["error"]] == [True, True, False, True, True, True]


def test_bytes_give_the_same_and_keep_their_path(predictor, paths, expected):
    content = [Path(path).read_bytes() for path in paths]
    assert rows_of(predictor({"path": paths, "bytes": content})) == expected
    assert rows_of(predictor({"bytes": content})) == [row | {"path": None} for row in expected]


def test_a_row_without_bytes_is_read_by_its_path(predictor, paths, expected):
    columns = predictor({"path": [paths[0], None], "bytes": [None, None]})
    assert rows_of(columns)[0] == expected[0]
    assert (columns["path"][1], columns["error"][1]) == (None, "neither a path nor bytes")


@pytest.mark.parametrize("missing", [None, math.nan, np.nan, pd.NA])
def test_missing_values_of_pandas_are_none(missing):
    batch = {"path": pd.Series(["a.jpg", missing]), "bytes": pd.Series([missing, b"x"], dtype=object)}
    assert items_of(batch) == [("a.jpg", None), (None, b"x")]


def test_an_empty_batch_has_empty_columns(predictor):
    assert predictor({"path": []}) == {name: [] for name in predictor.schema.names}


def test_other_columns_alone_are_an_error(predictor):
    with pytest.raises(UsageError, match="a batch has the columns image, label; give path"):
        predictor({"image": [1], "label": [2]})


def test_it_is_pickled_small_and_its_model_is_loaded_once(run, paths, expected, monkeypatch):
    monkeypatch.setattr(module, "_loaded", {})
    loads, load = [], Predictor.load
    monkeypatch.setattr(Predictor, "load", lambda *args, **given: loads.append(args) or load(*args, **given))
    first = BatchPredictor(run, top_k=2, device="cpu")
    assert len(pickle.dumps(first)) < 1000
    assert loads == []
    copies = [pickle.loads(pickle.dumps(first)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda copy: copy({"path": paths}), copies))
    assert len(loads) == 1
    assert all(columns["label_1"] == [row["label_1"] for row in expected] for columns in found)


def test_no_more_labels_than_classes(run):
    assert BatchPredictor(run, top_k=50).num_labels == len(NAMES)

"""Features in files: searched as scikit-learn does, and refused where they are of another model."""

import dataclasses
import json

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier

from ramstrans.errors import ConfigError, DataError
from ramstrans.saved.embeddings import (
    Made,
    load_embeddings,
    load_index,
    nearest,
    schema_of,
    unit,
    vote,
)

MADE = Made("abc", 2, 3)


def write(path, rows, made=MADE, *, thumbnails=False):
    path.parent.mkdir(exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema_of(made, thumbnails=thumbnails)), path)
    return path


def row(path, label=None, seed=0):
    vector = np.random.default_rng(seed).normal(size=6).astype(np.float32)
    return {"path": path, "error": None, "label": label, "embedding": vector}


@pytest.fixture
def gaussian():
    """Features of 61 images in 3 scales of 7 numbers, those of other lengths in each, in 5 classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 61)
    centres = rng.normal(size=(5, 3, 7))
    features = (centres[labels] + rng.normal(size=(61, 3, 7))) * np.array([1, 10, 0.1])[:, None]
    return features, labels


def test_a_product_of_units_is_the_mean_of_the_scales_cosines(gaussian):
    features, _ = gaussian
    units = unit(features.reshape(61, -1), 3)
    expected = np.mean([cosine_similarity(features[:, scale]) for scale in range(3)], axis=0)
    np.testing.assert_allclose(units @ units.T, expected, atol=1e-6)


def test_neighbours_and_votes_are_those_of_scikit_learn(gaussian):
    features, labels = gaussian
    units = unit(features.reshape(61, -1), 3)
    bank, queries = units[:40], units[40:]
    model = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / 0.07)
    ).fit(bank, labels[:40])
    distances, indices = model.kneighbors(queries)
    found, cosines = nearest(bank, queries, 20)
    np.testing.assert_array_equal(found, indices)
    np.testing.assert_allclose(cosines, 1 - distances, atol=1e-6)
    np.testing.assert_array_equal(vote(found, cosines, labels[:40], 5), model.predict(queries))
    assert nearest(bank, queries, 99)[0].shape == (21, 40)
    assert nearest(bank, queries[:0], 3)[0].shape == (0, 3)


def test_what_is_written_is_read(tmp_path):
    rows = [row("a.jpg", "wren", 1), {"path": "b.jpg", "error": "empty file"}, row("c.jpg", None, 2)]
    write(tmp_path / "index" / "part-000000.parquet", rows[:2])
    write(tmp_path / "index" / "part-000001.parquet", rows[2:])
    (tmp_path / "index" / "_SUCCESS").touch()
    found = load_index(tmp_path, MADE)
    assert (found.paths, found.labels, found.thumbnails) == (("a.jpg", "c.jpg"), ("wren", None), None)
    vectors = np.stack([rows[0]["embedding"], rows[2]["embedding"]])
    np.testing.assert_allclose(found.units, unit(vectors, 2), atol=1e-6)
    assert found.of_class("wren").tolist() == [0]
    assert load_index(tmp_path / "index", MADE) is None


def test_what_cannot_be_searched_is_one_line(tmp_path):
    def refused(error, match, place, made=MADE):
        with pytest.raises(error, match=match) as raised:
            load_embeddings(place, made)
        assert "\n" not in str(raised.value)

    whole = write(tmp_path / "one" / "part-000000.parquet", [row("a.jpg")])
    assert load_embeddings(whole, None).paths == ("a.jpg",)
    refused(DataError, "has no features; give a file or folder", tmp_path / "nothing")
    refused(ConfigError, "is of another model than this one", whole, dataclasses.replace(MADE, model="x"))
    refused(ConfigError, "has 2 x 3 numbers per image", whole, dataclasses.replace(MADE, width=5))
    refused(ConfigError, "give --num_scales as when", whole, dataclasses.replace(MADE, num_scales=1))
    write(tmp_path / "one" / "part-000001.parquet", [row("b.jpg")], dataclasses.replace(MADE, model="x"))
    refused(ConfigError, "files of different models", tmp_path / "one")
    unread = write(tmp_path / "bad" / "part-000000.parquet", [{"path": "a.jpg", "error": "empty file"}])
    refused(DataError, "no image that could be read", unread)
    (tmp_path / "bad" / "_partitions.json").write_text(json.dumps({}))
    refused(DataError, "is not finished", tmp_path / "bad")
    unread.unlink()  # stopped before the first file was whole
    refused(DataError, "is not finished", tmp_path / "bad")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")
    refused(DataError, "cannot be read", tmp_path / "damaged.parquet")
    parquet.write_table(pyarrow.table({"path": ["a.jpg"]}), tmp_path / "other.parquet")
    refused(DataError, "does not say which model", tmp_path / "other.parquet")

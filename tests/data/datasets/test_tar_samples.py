"""Tars of others are read by WebDataset's conventions, as its own library writes them."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from ramstrans.data.datasets.tar_samples import read_tar_samples
from ramstrans.data.sharding.manifest import read_shards
from ramstrans.errors import DataError
from tests.data.builders import decode_image, jpeg, make_tar


def sample(key, label, suffix="jpg"):
    """The files of a sample with its label in a .cls."""
    return [(f"{key}.cls", str(label).encode()), (f"{key}.{suffix}", b"image")]


def with_json(key, **fields):
    return [(f"{key}.jpg", b"image"), (f"{key}.json", json.dumps(fields).encode())]


TWO = [*sample("a", 0), *sample("b", 1)]


def rows(root):
    images = read_tar_samples(root)
    return [
        (record.path.relative_to(root).as_posix(), images.class_names[record.label], record.split)
        for record in images.records
    ]


def test_a_tar_of_the_librarys_own_writer(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    contents = [jpeg(seed) for seed in range(7)]
    with (tmp_path / "birds-train-0.tar").open("wb") as stream, webdataset.TarWriter(stream) as writer:
        for index, content in enumerate(contents):
            writer.write(
                {"__key__": f"folder/{index:03d}", "jpg": content, "cls": index % 2, "txt": "a bird"}
            )
    (tmp_path / "classes.txt").write_text("crow\nwren\n")
    images = read_shards(tmp_path)
    assert images.class_names == ("crow", "wren")
    assert [record.label for record in images.records] == [0, 1, 0, 1, 0, 1, 0]
    for record, content in zip(images.records, contents, strict=True):
        expected = Image.open(io.BytesIO(content))
        assert np.array_equal(np.asarray(decode_image(record.path)), np.asarray(expected))


def test_splits_by_name(tmp_path):
    make_tar(tmp_path / "set-train-00.tar", TWO)
    make_tar(tmp_path / "set-validation.tar", sample("c", 1))
    make_tar(tmp_path / "Test" / "00.tar", sample("d", 0, "PNG"))
    assert rows(tmp_path) == [
        ("Test/00.tar/d.PNG", "0", "test"),
        ("set-train-00.tar/a.jpg", "0", "train"),
        ("set-train-00.tar/b.jpg", "1", "train"),
        ("set-validation.tar/c.jpg", "1", "val"),
    ]


def test_without_splits_all_is_training(tmp_path):
    make_tar(tmp_path / "trainer.tar", TWO)
    make_tar(tmp_path / "latest.tar", sample("c", 1))
    assert {split for *_, split in rows(tmp_path)} == {"train"}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (TWO, ["0", "1"]),
        ([*with_json("a", label=1), *with_json("b", label=0)], ["1", "0"]),
        ([*with_json("a", label="wren"), *with_json("b", label="crow")], ["wren", "crow"]),
        ([*with_json("a", class_name="wren"), *with_json("b", class_name="crow")], ["wren", "crow"]),
        ([*with_json("a", label=0, class_name="x"), *with_json("b", label=1, class_name="x")], ["0", "1"]),
        ([*sample("a", "wren"), *sample("b", "crow\n")], ["wren", "crow"]),
        ([*sample("a", 12345678), *sample("b", 9145)], ["12345678", "9145"]),  # e.g. of a taxonomy
        ([("a.cls", b"1"), *with_json("a", label=0), ("b.cls", b"1"), *with_json("b", width=3)], ["0", "1"]),
        ([("a.json", b"[1]"), *sample("a", 0), *sample("b", 1)], ["0", "1"]),
    ],
)
def test_labels(tmp_path, files, names):
    make_tar(tmp_path / "set.tar", files)
    assert [name for _, name, _ in rows(tmp_path)] == names


@pytest.mark.parametrize("label", [1, "crow"])
def test_names_of_a_file_are_in_its_order(tmp_path, label):
    other = 0 if label == 1 else "wren"
    make_tar(tmp_path / "set.tar", [*sample("a", label), *sample("b", other)])
    (tmp_path / "classes.txt").write_text("wren\ncrow\n\n")
    assert read_tar_samples(tmp_path).class_names == ("wren", "crow")
    assert [name for _, name, _ in rows(tmp_path)] == ["crow", "wren"]


def test_what_is_no_sample_is_counted(tmp_path, caplog):
    extra = [
        ("README", b""),
        (".hidden.jpg", b""),
        ("._a.jpg", b""),
        ("__index__.json", b"?"),
        ("d.txt", b"text"),
    ]
    make_tar(tmp_path / "set.tar", [*extra, ("a.seg.png", b""), *TWO, ("b.txt", b"text")])
    (tmp_path / "more.tar.gz").touch()
    (tmp_path / "README").touch()
    assert [name for name, *_ in rows(tmp_path)] == ["set.tar/a.jpg", "set.tar/b.jpg"]
    assert caplog.messages == [f"{tmp_path}: left out 1 .gz, 1 sample without an image, 1 without a suffix"]


def test_names_with_dots_are_not_lost(tmp_path):
    make_tar(tmp_path / "set.tar", [*TWO, ("IMG.2034.jpg", b"image"), ("IMG.2034.cls", b"1")])
    message = (
        r"sample IMG: IMG\.2034\.jpg is not an image of it: .* ends at the first dot; write the tar with"
    )
    with pytest.raises(DataError, match=message):
        read_tar_samples(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([*TWO, ("c.jpg", b"")], "sample c: it has no label; add"),
        ([*TWO, ("c.png", b""), *sample("c", 0)], r"sample c: it has c\.png and c\.jpg; keep one image"),
        ([*TWO, *sample("a", 0)], "sample a: its files are not adjacent"),
        ([*TWO, ("c.jpg", b""), ("c.JPG", b"")], r"sample c: it has two files \.jpg"),
        ([*TWO, ("c.jpg", b""), ("c.json", b"{")], r"sample c: its \.json is not valid"),
        ([*TWO, ("c.jpg", b""), ("c.json", b"\xff")], "sample c: its label is not UTF-8"),
        ([*TWO, ("c.jpg", b""), ("c.cls", b"\xff")], "sample c: its label is not UTF-8"),
        ([*TWO, *with_json("c", label=1.5)], r"sample c: 'label' is 1\.5; give a number or a name"),
        ([*TWO, *with_json("c", label=True)], r"sample c: 'label' is True"),
        ([*TWO, *with_json("c", label=-1)], "sample c: its label is -1; give a number from 0"),
        ([*TWO, *sample("c", "wren")], "labels are both numbers and names"),
    ],
)
def test_damage_is_reported(tmp_path, files, message):
    make_tar(tmp_path / "set.tar", files)
    with pytest.raises(DataError, match=message) as caught:
        read_tar_samples(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crow\n", r"b\.jpg: its label is 1; classes\.txt lists 1 classes, from 0"),
        ("crow\nwren\ncrow\n", "line 3: class 'crow' is listed twice"),
    ],
)
def test_a_wrong_file_of_classes(tmp_path, text, message):
    make_tar(tmp_path / "set.tar", TWO)
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_tar_samples(tmp_path)


def test_splits_must_be_clear(tmp_path):
    make_tar(tmp_path / "train.tar", TWO)
    make_tar(tmp_path / "more.tar", TWO)
    with pytest.raises(DataError, match=r"more\.tar names 0 splits; name exactly one"):
        read_tar_samples(tmp_path)
    (tmp_path / "more.tar").rename(tmp_path / "test-train.tar")
    with pytest.raises(DataError, match=r"test-train\.tar names 2 splits"):
        read_tar_samples(tmp_path)


def test_a_tar_cut_short(tmp_path):
    tar = make_tar(tmp_path / "set.tar", TWO)
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(DataError, match=r"set\.tar is not a complete, uncompressed tar"):
        read_tar_samples(tmp_path)

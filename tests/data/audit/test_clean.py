from pathlib import Path

import pytest

from ramstrans.data.audit.clean import CHOICES, encode_table, kinds_to_leave_out, without_findings
from ramstrans.data.audit.findings import KINDS, Finding
from ramstrans.data.datasets.table import read_table
from ramstrans.data.records import ImageSet, Record
from ramstrans.errors import DataError, UsageError

SPLITS = ("train", "train", "val", "test")


@pytest.fixture
def images():
    """Two classes with two training images, one for validation and one for the test, with boxes."""
    records = (
        Record(Path(f"{name}-{i}.jpg"), label, split, (1.0, 2.0, 3.5, 40.0))
        for label, name in enumerate(("crow", "wren"))
        for i, split in enumerate(SPLITS)
    )
    return ImageSet(("crow", "wren"), tuple(records))


def paths(*names):
    return tuple(Path(f"{name}.jpg") for name in names)


def left_out(images, *findings, kinds=None):
    remaining = without_findings(images, findings, set(KINDS) if kinds is None else kinds)
    kept = {record.path.stem for record in remaining.records}
    return sorted({record.path.stem for record in images.records} - kept)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *((kind, ["crow-0", "crow-3"]) for kind in ("unreadable", "duplicate with two labels", "tiny")),
        ("label issue", ["crow-0", "crow-3"]),
        *((kind, ["crow-0"]) for kind in ("duplicate across splits", "near-duplicate across splits")),
        ("taken together across splits", ["crow-0"]),
        *((kind, []) for kind in ("empty box", "box outside", "class with few training images")),
    ],
)
def test_what_each_kind_leaves_out(images, kind, expected):
    finding = Finding(kind, paths("crow-0", "crow-3"), "")
    assert (
        left_out(images, finding, kinds=kinds_to_leave_out([kind]) if kind in CHOICES else set()) == expected
    )
    assert left_out(images, finding, kinds={"greyscale"}) == []


def test_of_copies_the_first_is_kept_and_of_a_burst_a_whole_split(images):
    burst = paths("crow-0", "crow-1", "crow-2", "crow-3")
    assert left_out(images, Finding("duplicate", burst[:2], "")) == ["crow-1"]
    assert left_out(images, Finding("alike across splits", (*burst[:1], burst[2]), "")) == ["crow-0"]
    more = images._replace(records=(*images.records, Record(Path("crow-9.jpg"), 0, "test")))
    assert left_out(
        more, Finding("taken together across splits", (burst[0], burst[3], *paths("crow-9")), "")
    ) == ["crow-0"]


def test_what_is_unreadable_is_not_the_copy_that_is_kept(images):
    findings = [
        Finding("duplicate across splits", paths("crow-0", "crow-3"), ""),
        Finding("unreadable", paths("crow-3"), ""),
    ]
    assert left_out(images, *findings) == ["crow-3"]


def test_a_file_listed_twice_stays_once(images):
    doubled = images._replace(records=(*images.records, images.records[0]))
    remaining = without_findings(doubled, [Finding("duplicate", paths("crow-0", "crow-0"), "")], set(KINDS))
    assert [record.path for record in remaining.records] == [record.path for record in images.records]


def test_boxes_go_and_images_stay(images):
    remaining = without_findings(images, [Finding("box outside", paths("crow-0"), "")], {"box outside"})
    assert [record.box is None for record in remaining.records] == [True] + [False] * 7


def test_a_class_without_training_images_goes_and_is_told(images, caplog):
    with_tit = ImageSet(
        ("crow", "tit", "wren"),
        (
            *(record._replace(label=2 * record.label) for record in images.records),
            Record(Path("tit-0.jpg"), 1, "train"),
            Record(Path("tit-1.jpg"), 1, "test"),
        ),
    )
    remaining = without_findings(with_tit, [Finding("unreadable", paths("tit-0"), "")], {"unreadable"})
    assert remaining == images
    assert caplog.messages == ["'tit' has no training images left: the whole class is left out"]


def test_fewer_than_two_classes_are_an_error(images):
    with pytest.raises(DataError, match="one class only, 'crow'"):
        without_findings(images, [Finding("unreadable", paths("wren-0", "wren-1"), "")], {"unreadable"})


def test_names_of_kinds():
    errors = kinds_to_leave_out(["errors"])
    assert errors == {kind for kind in CHOICES[1:] if KINDS[kind] == "error"}
    assert "unreadable" in errors
    assert kinds_to_leave_out(["errors", "label issue"]) == errors | {"label issue"}
    for name in ("imbalance", "nonsense"):
        with pytest.raises(UsageError, match=f"--leave_out '{name}': give 'errors', 'unreadable'"):
            kinds_to_leave_out([name])


def test_the_table_is_read_again(images, tmp_path):
    """Names with commas and quotes, boxes that are partly missing, groups, paths above and below."""
    folder = tmp_path / "tables"
    folder.mkdir()
    records = tuple(
        record._replace(
            path=(folder if record.split == "train" else tmp_path) / f'a, "{record.path.name}"',
            box=None if record.split == "val" else record.box,
            group="7" if record.split == "test" else "",
        )
        for record in images.records
    )
    names = ('crow, "hooded"', "wren")
    (folder / "clean.csv").write_bytes(encode_table(ImageSet(names, records), folder))
    for record in records:
        record.path.touch()
    again = read_table(folder / "clean.csv", group_column="group")
    assert again == ImageSet(names, records)
    assert str(tmp_path) not in (folder / "clean.csv").read_text().splitlines()[1]


def test_names_that_are_not_utf8_keep_their_bytes(images, tmp_path):
    records = tuple(
        record._replace(path=tmp_path / f"b\udce9 {record.path.name}", box=None) for record in images.records
    )
    odd = ImageSet(("caf\udce9", "鳥"), records)
    (tmp_path / "clean.csv").write_bytes(encode_table(odd, tmp_path))
    for record in records:
        record.path.touch()
    assert b"caf\xe9" in (tmp_path / "clean.csv").read_bytes()
    assert read_table(tmp_path / "clean.csv") == odd

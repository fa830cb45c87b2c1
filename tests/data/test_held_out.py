"""Classes that training leaves out."""

from pathlib import Path

import pytest

from ramstrans.data.build import build_image_set, build_left_out
from ramstrans.data.config import DataConfig
from ramstrans.data.held_out import held_out_names, without_classes
from ramstrans.data.records import ImageSet, Record
from ramstrans.errors import ConfigError, DataError

NAMES = tuple(f"bird {index}" for index in range(11))


def test_the_draw_depends_on_seed_and_names_alone():
    drawn = held_out_names(NAMES, 3, seed=0)
    assert len(drawn) == 3
    assert set(drawn) == set(held_out_names(NAMES[::-1], 3, seed=0))
    assert list(drawn) == [name for name in NAMES if name in drawn]  # in label order
    assert len({held_out_names(NAMES, 3, seed) for seed in range(20)}) > 10


@pytest.mark.parametrize(("count", "most"), [(10, 9), (11, 9)])
def test_two_classes_stay(count, most):
    with pytest.raises(DataError, match=f"leaves fewer than two to train on; give at most {most}"):
        held_out_names(NAMES, count, seed=0)
    assert len(held_out_names(NAMES, 9, seed=0)) == 9


def test_labels_and_hierarchy_follow():
    records = tuple(Record(Path(f"{label}.jpg"), label, "train") for label in range(3))
    images = ImageSet(("crow", "jay", "owl"), records, (("Corvids",), ("Corvids",), ("Owls",)))
    images = images._replace(ranks=("species", "family"))
    left = without_classes(images, {"crow"})
    assert left.class_names == ("jay", "owl")
    assert [(record.path.stem, record.label) for record in left.records] == [("1", 0), ("2", 1)]
    assert left.hierarchy == (("Corvids",), ("Owls",))
    assert left.ranks == ("species", "family")


def test_training_and_its_rest_are_the_whole(birds):
    whole = DataConfig("cub", birds, val_fraction=0.25)
    config = DataConfig("cub", birds, val_fraction=0.25, hold_out_classes=1)
    images, known = build_image_set(whole), build_image_set(config)
    rest = build_left_out(config, known.class_names)
    assert len(known.class_names) == 2
    assert len(rest.class_names) == 1
    drawn = {(record.path, record.split) for part in (known, rest) for record in part.records}
    assert drawn == {(record.path, record.split) for record in images.records}  # the same splits as without


def test_at_least_one():
    with pytest.raises(ConfigError, match="hold_out_classes is 0"):
        DataConfig("folder", Path(), hold_out_classes=0)

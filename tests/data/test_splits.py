from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.records import ImageSet, Record
from ramstrans.data.splits import check_classes, hold_out
from ramstrans.errors import DataError


def image_set(counts, root="data"):
    """A set with the given number of training images per class, each class in its own folder."""
    records = (
        Record(Path(root, name, f"{i:03}.jpg"), label, "train")
        for label, (name, count) in enumerate(counts.items())
        for i in range(count)
    )
    return ImageSet(tuple(counts), tuple(records))


def held(images, split="val"):
    return {(record.path.parent.name, record.path.name) for record in images.of_split(split)}


counts_of_classes = st.dictionaries(st.text("abcde", min_size=1, max_size=3), st.integers(1, 23), min_size=1)


@given(counts=counts_of_classes, fraction=st.floats(0, 0.999), seed=st.integers(0, 2**40))
def test_each_class_gives_its_fraction_and_keeps_an_image(counts, fraction, seed):
    images = image_set(counts)
    divided = hold_out(images, fraction, seed, into="test")
    assert [record.path for record in divided.records] == [record.path for record in images.records]
    assert divided.counts("val") == dict.fromkeys(counts, 0)
    for name, count in counts.items():
        moved = divided.counts("test")[name]
        assert divided.counts("train")[name] == count - moved >= 1
        assert moved == count - 1 or abs(moved - fraction * count) < 1 + 1e-9


@given(counts=counts_of_classes, fraction=st.floats(0, 0.9), seed=st.integers(0, 99), data=st.data())
def test_neither_order_nor_other_classes_nor_the_root_change_the_draw(counts, fraction, seed, data):
    images = image_set(counts)
    expected = held(hold_out(images, fraction, seed, into="val"))
    shuffled = ImageSet(images.class_names, tuple(data.draw(st.permutations(images.records))))
    assert held(hold_out(shuffled, fraction, seed, into="val")) == expected
    more = image_set({"zz": 7, **counts}, root="elsewhere/again")
    with_more = held(hold_out(more, fraction, seed, into="val"))
    assert {item for item in with_more if item[0] != "zz"} == expected


def test_the_draw_is_pinned():
    images = image_set({"crow": 7, "wren": 11})
    expected = {
        ("crow", "004.jpg"),
        ("crow", "006.jpg"),
        ("wren", "004.jpg"),
        ("wren", "006.jpg"),
        ("wren", "007.jpg"),
        ("wren", "010.jpg"),
    }
    assert held(hold_out(images, 0.3, seed=5, into="val")) == expected


def test_seeds_and_classes_differ():
    images = image_set({"crow": 97, "wren": 97})
    draws = [held(hold_out(images, 0.2, seed, into="val")) for seed in range(3)]
    assert len(set(map(frozenset, draws))) == 3
    of_crow, of_wren = ({file for name, file in draws[0] if name == bird} for bird in ("crow", "wren"))
    assert of_crow != of_wren


def test_small_classes_give_their_fraction_on_average():
    images = image_set({f"class {i}": 3 for i in range(499)})
    moved = len(hold_out(images, 0.1, seed=0, into="val").of_split("val"))
    assert moved == pytest.approx(0.1 * 3 * 499, rel=0.2)


def test_only_training_images_move():
    images = image_set({"crow": 7, "wren": 5})
    tested = hold_out(images, 0.4, seed=0, into="test")
    both = hold_out(tested, 0.4, seed=0, into="val")
    assert held(both, "test") == held(tested, "test")
    assert not held(both, "test") & held(both, "val")


def test_a_file_listed_twice_moves_as_one():
    images = image_set({"crow": 11, "wren": 11})
    doubled = images._replace(records=images.records + images.records)
    divided = hold_out(doubled, 0.5, seed=0, into="val")
    assert not held(divided, "val") & held(divided, "train")


def test_nothing_held_out_changes_nothing():
    images = image_set({"crow": 7, "wren": 5})
    assert hold_out(images, 0, seed=3, into="val") == images


def test_check_classes():
    check_classes(image_set({"crow": 1, "wren": 1}))
    with pytest.raises(DataError, match="holds no images"):
        check_classes(ImageSet((), ()))
    with pytest.raises(DataError, match="one class only, 'crow'"):
        check_classes(image_set({"crow": 7}))
    with pytest.raises(DataError, match="1 of 3 classes have no training images: 'wren'; add"):
        check_classes(image_set({"crow": 2, "wren": 0, "tit": 1}))
    many = image_set({"crow": 2} | dict.fromkeys("abcdefg", 0))
    with pytest.raises(DataError, match="'a'; 'b'; 'c'; 'd'; 'e'; and 2 more"):
        check_classes(many)

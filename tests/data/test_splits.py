import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.records import ImageSet, Record
from ramstrans.data.splits import check_classes, check_groups, divided_groups, hold_out, hold_out_fold
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


def test_a_file_of_two_classes_is_in_one_split():
    images = image_set({"crow": 20, "wren": 20})
    again = [record._replace(label=1 - record.label) for record in images.records[::2]]
    divided = hold_out(images._replace(records=(*images.records, *again)), 0.3, seed=0, into="val")
    assert not held(divided, "val") & held(divided, "train")


def test_nothing_held_out_changes_nothing():
    images = image_set({"crow": 7, "wren": 5})
    assert hold_out(images, 0, seed=3, into="val") == images


@st.composite
def grouped_sets(draw):
    """Sets of up to 5 classes whose images are in groups, of one class or of several, or in none."""
    counts = draw(st.dictionaries(st.sampled_from("abcde"), st.integers(1, 23), min_size=1))
    names = st.sampled_from(["", "x", "y", "z", *map(str, range(7))])
    records = (record._replace(group=draw(names)) for record in image_set(counts).records)
    return image_set(counts)._replace(records=tuple(records))


def groups_of(images, label, split="train"):
    return {record.group or record.path for record in images.of_split(split) if record.label == label}


@given(images=grouped_sets(), fraction=st.floats(0, 0.9), seed=st.integers(0, 99), data=st.data())
def test_groups_are_never_divided_and_each_class_keeps_one(images, fraction, seed, data):
    divided = hold_out(images, fraction, seed, into="test")
    assert not divided_groups(divided)
    for label in range(len(images.class_names)):
        assert groups_of(divided, label)
    shuffled = images._replace(records=tuple(data.draw(st.permutations(images.records))))
    assert held(hold_out(shuffled, fraction, seed, into="test"), "test") == held(divided, "test")


@given(counts=counts_of_classes, fraction=st.floats(0, 0.9), seed=st.integers(0, 99))
def test_groups_of_one_image_change_no_number(counts, fraction, seed):
    images = image_set(counts)
    alone = images._replace(
        records=tuple(record._replace(group=str(record.path)) for record in images.records)
    )
    expected = hold_out(images, fraction, seed, into="val").counts("val")
    assert hold_out(alone, fraction, seed, into="val").counts("val") == expected


def in_groups(counts):
    """Classes of groups of the given sizes, e.g. {"crow": [20, 20]}."""
    records = [
        Record(Path(name, f"{group}-{i}.jpg"), label, "train", group=f"{name} {group}")
        for label, (name, sizes) in enumerate(counts.items())
        for group, size in enumerate(sizes)
        for i in range(size)
    ]
    return ImageSet(tuple(counts), tuple(records))


@pytest.mark.parametrize(
    ("sizes", "fraction", "expected"),
    [
        ([20, 20, 20], 0.2, 20),  # wanted 12: one group, as none would leave the class untested
        ([20, 20, 20], 0.5, 20),  # wanted 30: 20 is as near as 40
        ([10] * 6, 0.5, 30),
        ([1, 59], 0.1, 1),  # wanted 6: 1 is nearer than 59
        ([60], 0.2, 0),  # the only group stays
    ],
)
def test_groups_come_as_near_as_they_can(sizes, fraction, expected):
    images = in_groups({"crow": sizes, "wren": [5, 5]})
    counts = {hold_out(images, fraction, seed, into="test").counts("test")["crow"] for seed in range(5)}
    assert counts == {expected}


def test_groups_of_several_classes_keep_all_classes_in_both_splits():
    """Six days with all three classes each: two of them are nearest to a third of each class."""
    records = [
        Record(Path(name, f"{day}-{i}.jpg"), label, "train", group=f"day {day}")
        for label, name in enumerate(("crow", "tit", "wren"))
        for day in range(6)
        for i in range(4)
    ]
    divided = hold_out(ImageSet(("crow", "tit", "wren"), tuple(records)), 1 / 3, 0, into="test")
    assert divided.counts("test") == {"crow": 8, "tit": 8, "wren": 8}


@given(images=grouped_sets(), folds=st.integers(2, 5), seed=st.integers(0, 99))
def test_folds_divide_all_images_and_no_group(images, folds, seed):
    if any(len(groups_of(images, label)) < 2 for label in range(len(images.class_names))):
        with pytest.raises(DataError, match="needs two images or groups of each class"):
            hold_out_fold(images, folds, 1, seed)
        return
    if len({record.group or record.path for record in images.records}) < folds:
        with pytest.raises(DataError, match=rf"data\.folds is {folds}, and there are"):
            hold_out_fold(images, folds, 1, seed)
        return
    parts = [hold_out_fold(images, folds, fold, seed) for fold in range(1, folds + 1)]
    tested = [record.path for part in parts for record in part.of_split("test")]
    assert sorted(tested) == sorted(record.path for record in images.records)
    for part in parts:
        assert not divided_groups(part)
        check_groups(part)


@given(counts=counts_of_classes, folds=st.integers(2, 7), seed=st.integers(0, 99))
def test_folds_are_even(counts, folds, seed):
    images = image_set({name: count + 1 for name, count in counts.items()})
    folds = min(folds, len(images.records))
    parts = [hold_out_fold(images, folds, fold, seed).counts("test") for fold in range(1, folds + 1)]
    for name in counts:
        of_class = [part[name] for part in parts]
        assert max(of_class) - min(of_class) <= 1
    sizes = [sum(part.values()) for part in parts]
    assert max(sizes) - min(sizes) <= 1 + len(counts) // 2


@pytest.mark.parametrize("seed", range(20))
def test_every_fold_trains_with_all_classes_of_groups_that_hold_several(seed):
    """Days with some of many classes each, of which some are there on two days only."""
    rng = random.Random(seed)
    days = {label: rng.sample(range(10), rng.choice([2, 2, 3, 4])) for label in range(30)}
    records = [
        Record(Path(f"{label}-{day}.jpg"), label, "train", group=f"day {day}")
        for label, seen in days.items()
        for day in seen
    ]
    images = ImageSet(tuple(f"{label:02}" for label in days), tuple(records))
    for part in [hold_out_fold(images, 5, fold, seed) for fold in range(1, 6)]:
        assert all(part.counts("train").values())
        assert part.of_split("test")


def test_more_folds_than_groups_are_told_at_once():
    records = [
        Record(Path(f"{label}-{day}.jpg"), label, "train", group=f"day {day}")
        for label in range(3)
        for day in range(4)
    ]
    images = ImageSet(("crow", "tit", "wren"), tuple(records))
    with pytest.raises(DataError, match=r"data\.folds is 5, and there are 4 groups or images; give 2 to 4"):
        hold_out_fold(images, 5, 1, 0)


def test_a_class_that_shares_all_its_groups_with_others_may_be_impossible():
    """Two folds and three groups, of which each pair shares a class."""
    pairs = {0: (0, 1), 1: (1, 2), 2: (0, 2)}
    records = [
        Record(Path(f"{label}-{day}.jpg"), label, "train", group=f"day {day}")
        for label, days in pairs.items()
        for day in days
    ]
    images = ImageSet(("crow", "tit", "wren"), tuple(records))
    with pytest.raises(DataError, match=r"a run would have no training images of '\w+', whose groups hold"):
        hold_out_fold(images, 2, 1, 0)


def test_folds_depend_on_the_seed_and_not_on_the_order():
    images = image_set({"crow": 11, "wren": 13})
    reversed_ = images._replace(records=images.records[::-1])
    first = held(hold_out_fold(images, 3, 2, seed=0), "test")
    assert held(hold_out_fold(reversed_, 3, 2, seed=0), "test") == first
    assert held(hold_out_fold(images, 3, 2, seed=1), "test") != first


def test_folds_of_a_set_with_splits_of_its_own_are_refused():
    images = hold_out(image_set({"crow": 7, "wren": 5}), 0.4, 0, "val")
    with pytest.raises(DataError, match=r"has a val split of its own; leave data\.folds out"):
        hold_out_fold(images, 3, 1, 0)


def test_groups_in_two_given_splits_are_refused():
    images = in_groups({"crow": [2, 2], "wren": [2, 2]})
    mixed = [
        record._replace(split="test") if "0-1" in record.path.name else record for record in images.records
    ]
    assert list(divided_groups(images._replace(records=tuple(mixed)))) == ["crow 0", "wren 0"]
    with pytest.raises(DataError, match=r"2 groups .*: 'crow 0' in train and test; 'wren 0' in"):
        check_groups(images._replace(records=tuple(mixed)))
    check_groups(images)


def test_check_classes():
    check_classes(image_set({"crow": 1, "wren": 1}))
    with pytest.raises(DataError, match="holds no images"):
        check_classes(ImageSet((), ()))
    with pytest.raises(DataError, match="one class only, 'crow'"):
        check_classes(image_set({"crow": 7}))
    with pytest.raises(DataError, match="1 of 3 classes have no training images: 'wren'; add"):
        check_classes(image_set({"crow": 2, "wren": 0, "tit": 1}))
    only_test = [record._replace(split="test") for record in image_set({"crow": 1, "wren": 1}).records]
    with pytest.raises(DataError, match="no training images, only test; add train/<class>/"):
        check_classes(ImageSet(("crow", "wren"), tuple(only_test)))
    many = image_set({"crow": 2} | dict.fromkeys("abcdefg", 0))
    with pytest.raises(DataError, match="'a'; 'b'; 'c'; 'd'; 'e'; and 2 more"):
        check_classes(many)


def several(*labels, split="train", groups=None):
    """Images of three labels or none."""
    records = (
        Record(Path(f"{i:03}.jpg"), -1, split, group=groups[i] if groups else "", labels=some)
        for i, some in enumerate(labels)
    )
    return ImageSet(("crow", "owl", "wren"), tuple(records))


def test_images_of_several_labels_are_stratified_by_each_and_by_none():
    images = several(*[(0,)] * 40, *[(0, 1)] * 20, *[(1, 2)] * 20, *[()] * 20)
    held = hold_out(images, 0.2, seed=3, into="test")
    assert held.counts("test") == pytest.approx({"crow": 12, "owl": 8, "wren": 4}, abs=1)
    assert sum(record.labels == () for record in held.of_split("test")) == 4
    assert len(held.of_split("test")) == pytest.approx(20, abs=1)
    shuffled = images._replace(records=images.records[::-1])
    tested = {record.path for record in held.of_split("test")}
    assert {record.path for record in hold_out(shuffled, 0.2, 3, "test").of_split("test")} == tested


def test_each_label_with_two_images_is_in_both_splits():
    images = several(*[(0,)] * 50, (0, 1), (1,), (2,))
    for seed in range(5):
        held = hold_out(images, 0.1, seed, "val")
        assert held.counts("val")["owl"] == held.counts("train")["owl"] == 1
        assert held.counts("val")["wren"] == 0
        assert hold_out(images, 0.0, seed, "val") == images


def test_several_labels_and_groups():
    groups = [f"bird {index // 4}" for index in range(60)]
    images = several(*[((0,), (0, 1), (2,), ())[i % 4] for i in range(60)], groups=groups)
    held = hold_out(images, 0.2, seed=1, into="test")
    assert divided_groups(held) == {}
    assert len(held.of_split("test")) == 12

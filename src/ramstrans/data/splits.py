"""Validation and test splits, and folds, drawn from the training images; checks of classes and splits."""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ramstrans.data.records import ImageSet, Record, Split
from ramstrans.errors import DataError, first_few

_MAX_NAMED = 5

NO_LABEL = -1
"""Stands for the label of images that have none, so that draws spread them too."""


class _Group(NamedTuple):
    """Images that stay together: those of a group, or one file.

    Attributes:
        key: The group's name and "", or "" and the file.
        counts: Number of files of each label.
    """

    key: tuple[str, str]
    counts: Counter[int]


def hold_out(images: ImageSet, fraction: float, seed: int, into: Split) -> ImageSet:
    """Move a fraction of each class's training images, in [0, 1), into another split, `val` or `test`.

    `fraction * num_images` of a class is rounded up or down at random, so that the total is right on average
    however small the classes are; one training image of each class stays. A file listed more than once moves
    with all its records. Records keep their order, which does not change the draw.

    Without groups, the draw of a class depends only on the seed, its name, and its own files. Groups move
    whole, one of each class stays, and the draw comes as near to each class's number as they allow. Images of
    several labels, or none, are drawn like groups, and so that each label with two images has one at least in
    both splits, where possible.

    >>> records = tuple(Record(Path(f"{i:02}.jpg"), i // 10, "train") for i in range(20))
    >>> held = hold_out(ImageSet(("crow", "wren"), records), 0.3, seed=0, into="val")
    >>> held.counts("val"), held.counts("train")
    ({'crow': 3, 'wren': 3}, {'crow': 7, 'wren': 7})
    """
    assert 0 <= fraction < 1, f"the fraction to hold out is {fraction}"
    train = images.of_split("train")
    if images.multi_label or any(record.group for record in train):
        groups = _groups(train)
        wanted = {  # the numbers that are drawn without groups
            label: _rounded(fraction, count, _generator(f"{seed} {into} {_class_name(images, label)}"))
            for label, count in _num_images(groups).items()
        }
        if images.multi_label and fraction:
            wanted = {label: count or 1 for label, count in wanted.items()}
        keys = _draw_groups(groups, wanted, _generator(f"{seed} {into}"))
        return _moved(images, lambda record: _key(record) in keys, into)
    paths_of: dict[int, set[Path]] = defaultdict(set)
    for record in train:
        paths_of[record.label].add(record.path)
    drawn: set[Path] = set()
    for label, paths in paths_of.items():
        generator = _generator(f"{seed} {into} {images.class_names[label]}")
        count = _rounded(fraction, len(paths), generator)
        drawn.update(generator.sample(sorted(paths), count))
    return _moved(images, lambda record: record.path in drawn, into)


def hold_out_fold(images: ImageSet, folds: int, fold: int, seed: int) -> ImageSet:
    """Move one of `folds` parts of the images into the test split: cross-validation.

    Every image is in one part. Each class is spread as evenly as its groups allow, and the parts are of
    about equal size; they depend on the seed, the files and the groups, not on the order of the records.

    Args:
        images: A data set of training images only.
        folds: Number of parts, 2 or more.
        fold: The part that becomes the test split, from 1 to `folds`.
        seed: Seed of the division.

    Raises:
        DataError: The data set has a validation or test split, a class has one image or group only, or there
            are fewer groups than folds.

    >>> records = tuple(Record(Path(f"{i:02}.jpg"), i // 10, "train") for i in range(20))
    >>> images = ImageSet(("crow", "wren"), records)
    >>> [hold_out_fold(images, 3, fold, seed=0).counts("test") for fold in (1, 2, 3)]
    [{'crow': 4, 'wren': 3}, {'crow': 3, 'wren': 4}, {'crow': 3, 'wren': 3}]
    """
    assert 1 <= fold <= folds, f"fold {fold} of {folds}"
    if given := sorted({record.split for record in images.records} - {"train"}):
        raise DataError(
            f"data.folds divides all images, and the data set has a {given[-1]} split of its own; leave "
            "data.folds out, or give the images without splits (a table: --data.split_column none)"
        )
    groups = _groups(images.records)
    num_groups = Counter(label for group in groups for label in group.counts)
    single = [label for label, count in sorted(num_groups.items()) if count == 1 and label != NO_LABEL]
    if alone := [images.class_names[label] for label in single]:
        raise DataError(
            f"data.folds needs two images or groups of each class; one only have {_named(alone)}: "
            "add some, or remove the class"
        )
    if len(groups) < folds:
        raise DataError(
            f"data.folds is {folds}, and there are {len(groups)} groups or images; give 2 to {len(groups)}"
        )
    fold_of = _assign_folds(groups, folds, _generator(f"{seed} folds"))
    if together := _labels_in_one_fold(groups, fold_of):
        names = [images.class_names[label] for label in together]
        raise DataError(
            f"data.folds {folds}: a run would have no training images of {_named(names)}, whose groups hold "
            "other classes too; give another number of folds or another --data.split_seed, or smaller groups"
        )
    return _moved(images, lambda record: fold_of[_key(record)] == fold - 1, "test")


def check_classes(images: ImageSet) -> None:
    """Raise unless there are two classes or more, each with training images.

    Raises:
        DataError: Naming the first few classes without training images.

    >>> check_classes(ImageSet(("crow",), (Record(Path("0.jpg"), 0, "train"),)))
    Traceback (most recent call last):
    ramstrans.errors.DataError: the data set has one class only, 'crow'; give it two or more
    """
    names = images.class_names
    if not names or not images.records:
        raise DataError(
            "the data set holds no images; give it two classes or more, each with training images"
        )
    if len(names) == 1:
        raise DataError(f"the data set has one class only, '{names[0]}'; give it two or more")
    if not images.of_split("train"):
        raise DataError(
            f"the data set has no training images, only {_splits(images.records)}; "
            "add train/<class>/, or rows of split train"
        )
    without = [name for name, count in images.counts("train").items() if count == 0]
    if without:
        raise DataError(
            f"{len(without)} of {len(names)} classes have no training images: {_named(without)}; "
            "add some, or remove the class"
        )


def divided_groups(images: ImageSet) -> dict[str, list[Record]]:
    """The records of each group that lies in more than one split, by its name, in order.

    >>> records = tuple(Record(Path("1.jpg"), 0, split, group="bird 7") for split in ("train", "val"))
    >>> list(divided_groups(ImageSet(("crow",), records)))
    ['bird 7']
    """
    members: dict[str, list[Record]] = defaultdict(list)
    for record in images.records:
        if record.group:
            members[record.group].append(record)
    return {
        group: records for group, records in members.items() if len({record.split for record in records}) > 1
    }


def check_groups(images: ImageSet) -> None:
    """Raise if a group lies in more than one of the splits that the data set came with.

    Raises:
        DataError: Naming the first few groups.
    """
    divided = divided_groups(images)
    if divided:
        named = [f"'{group}' in {_splits(records)}" for group, records in divided.items()]
        raise DataError(
            f"{len(divided)} groups are in more than one split of the data set: "
            f"{first_few(named, _MAX_NAMED)}; give splits that keep groups whole, or none (they are drawn), "
            "or leave the option data.group_... out"
        )


def _splits(records: Iterable[Record]) -> str:
    return " and ".join(sorted({record.split for record in records}, reverse=True))


def _named(names: Sequence[str]) -> str:
    return first_few([f"'{name}'" for name in names], _MAX_NAMED)


def _moved(images: ImageSet, is_drawn: Callable[[Record], bool], into: Split) -> ImageSet:
    """Move the drawn training records into another split."""
    records = (
        record._replace(split=into) if record.split == "train" and is_drawn(record) else record
        for record in images.records
    )
    return images._replace(records=tuple(records))


def _generator(key: str) -> random.Random:
    """A generator seeded by a text, the same on every machine."""
    name = key.encode(errors="surrogateescape")  # a folder may be named in any bytes
    return random.Random(int.from_bytes(hashlib.sha256(name).digest()))


def _class_name(images: ImageSet, label: int) -> str:
    return "" if label == NO_LABEL else images.class_names[label]


def _rounded(fraction: float, num_images: int, generator: random.Random) -> int:
    """A fraction of a class's images, rounded at random; one image at least stays."""
    whole, rest = divmod(fraction * num_images, 1)
    return min(int(whole) + (generator.random() < rest), num_images - 1)


def _key(record: Record) -> tuple[str, str]:
    return (record.group, "") if record.group else ("", str(record.path))


def _groups(records: Iterable[Record]) -> list[_Group]:
    """The groups, sorted."""
    files: dict[tuple[str, str], set[tuple[int, Path]]] = defaultdict(set)
    for record in records:
        files[_key(record)].update((label, record.path) for label in record.classes or (NO_LABEL,))
    return [_Group(key, Counter(label for label, _ in files[key])) for key in sorted(files)]


def _num_images(groups: Iterable[_Group]) -> Counter[int]:
    """Number of images of each label."""
    total = Counter[int]()
    for group in groups:
        total.update(group.counts)
    return total


def _draw_groups(
    groups: Sequence[_Group], wanted: dict[int, int], generator: random.Random
) -> set[tuple[str, str]]:
    """Choose groups with about the wanted number of images of each label; return their keys.

    A group is taken if that makes the sum over the labels of `((taken - wanted) / num_images) ** 2` smaller
    and leaves each of its labels another group. First, each label that wants images gets the group that is
    best for this sum, those with the fewest groups first; then the others, in random order.
    """
    order = list(groups)
    generator.shuffle(order)
    total, taken, chosen = _num_images(groups), Counter[int](), set[tuple[str, str]]()
    left = Counter(label for group in groups for label in group.counts)
    groups_of: dict[int, list[_Group]] = defaultdict(list)
    for group in order:
        for label in group.counts:
            groups_of[label].append(group)

    def change(group: _Group) -> float:
        return sum(
            count * (2 * (taken[label] - wanted[label]) + count) / total[label] ** 2
            for label, count in group.counts.items()
        )

    def may_take(group: _Group) -> bool:
        return group.key not in chosen and all(left[label] > 1 for label in group.counts)

    def take(group: _Group) -> None:
        chosen.add(group.key)
        taken.update(group.counts)
        left.subtract(group.counts.keys())

    for label in sorted(groups_of, key=lambda label: (len(groups_of[label]), label)):
        if wanted[label] and not taken[label]:
            possible = [group for group in groups_of[label] if may_take(group)]
            if possible:
                take(min(possible, key=change))
    for group in order:
        if may_take(group) and change(group) < 0:
            take(group)
    return chosen


def _assign_folds(
    groups: Sequence[_Group], folds: int, generator: random.Random
) -> dict[tuple[str, str], int]:
    """The fold of each group, from 0, by its key.

    Large groups come first. Each goes where the sum over folds and labels of
    `(num_in_fold / num_images) ** 2` grows least; of equal folds, to the one with the fewest images. The last
    group of a label does not go where all others of that label are, if it can go elsewhere.
    """
    order = list(groups)
    generator.shuffle(order)
    order.sort(key=lambda group: -group.counts.total())
    total = _num_images(groups)
    in_fold = [Counter[int]() for _ in range(folds)]
    sizes = [0] * folds
    left = Counter(label for group in groups for label in group.counts)
    folds_of: dict[int, set[int]] = defaultdict(set)
    fold_of = {}
    for group in order:
        last = [label for label in group.counts if label != NO_LABEL and left[label] == 1]

        def growth(fold: int, group: _Group = group, last: Sequence[int] = last) -> tuple[bool, float, int]:
            is_full = any(folds_of[label] == {fold} for label in last)
            taken = in_fold[fold]
            added = (n * (2 * taken[label] + n) / total[label] ** 2 for label, n in group.counts.items())
            return is_full, sum(added), sizes[fold]

        best = min(range(folds), key=growth)
        in_fold[best].update(group.counts)
        sizes[best] += group.counts.total()
        left.subtract(group.counts.keys())
        for label in group.counts:
            folds_of[label].add(best)
        fold_of[group.key] = best
    return fold_of


def _labels_in_one_fold(groups: Sequence[_Group], fold_of: Mapping[tuple[str, str], int]) -> list[int]:
    """The labels all of whose images are in one fold."""
    folds_of: dict[int, set[int]] = defaultdict(set)
    for group in groups:
        for label in group.counts:
            folds_of[label].add(fold_of[group.key])
    return sorted(label for label, found in folds_of.items() if len(found) == 1 and label != NO_LABEL)

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ramstrans.data.audit.duplicates import fingerprint, likeness
from ramstrans.data.audit.leaks import alike_across_splits, leak_findings, taken_together
from ramstrans.data.records import ImageSet, Record
from tests.shared import CUB50, needs

START = datetime(2026, 5, 31, 12)


def records_of(splits, label=0, group=""):
    """One record for each letter: t for train, v for val, e for test."""
    names = {"t": "train", "v": "val", "e": "test"}
    return [
        Record(Path(f"{label}-{i}.jpg"), label, names[letter], group=group) for i, letter in enumerate(splits)
    ]


def at(records, seconds):
    return {
        record.path: None if second is None else START + timedelta(seconds=second)
        for record, second in zip(records, seconds, strict=True)
    }


@pytest.mark.parametrize(
    ("splits", "seconds", "expected"),
    [
        ("te", [0, 60], [[0, 1]]),
        ("te", [0, 61], []),
        ("tt", [0, 1], []),
        ("te", [0, None], []),
        ("tte", [0, 50, 100], [[0, 1, 2]]),  # a chain of pauses of 50 s each
        ("ettve", [500, 0, 20, 30, 490], [[1, 2, 3]]),  # 490 and 500 are both of the test
        ("", [], []),
    ],
)
def test_runs_of_photographs_in_two_splits(splits, seconds, expected):
    records = records_of(splits)
    found = list(taken_together(records, at(records, seconds)))
    assert found == [[records[index] for index in run] for run in expected]


def scene(seed, shift=0):
    """A smooth random picture of 96 x 96, cut out of a larger one, a little to the side."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
    return coarse.resize((120, 120), Image.Resampling.BICUBIC).crop((shift, 4, shift + 96, 100))


def prints_of(records, images):
    return {record.path: fingerprint(image) for record, image in zip(records, images, strict=True)}


def test_likeness_is_the_cosine_mirrored_or_not():
    one, other = scene(0), scene(1)
    flipped = one.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    first, second = (np.stack(list(map(fingerprint, images))) for images in ([one, other], [flipped, other]))
    cosine, is_near = likeness(first, second)
    assert cosine.diagonal() == pytest.approx([1, 1], abs=0.01)
    assert is_near.tolist() == [[True, False], [False, True]]
    assert cosine[0, 1] < 0.7


def test_alike_across_splits_but_no_copies():
    records = records_of("tet")
    shifted = [scene(0), scene(0, shift=4), scene(1)]
    prints = prints_of(records, shifted)
    cosine, is_near = likeness(*[np.stack(list(prints.values()))] * 2)
    assert 0.85 < cosine[0, 1] < 0.95
    assert not is_near[0, 1]
    assert list(alike_across_splits(records, prints)) == [records[:2]]
    in_one_split = [record._replace(split="train") for record in records]
    assert not list(alike_across_splits(in_one_split, prints))
    copies = prints_of(records, [scene(0), scene(0), scene(1)])
    assert not list(alike_across_splits(records, copies))


@pytest.mark.parametrize("max_pairs", [1, 7, 16, 100])
def test_blocks_of_any_size_find_the_same(monkeypatch, max_pairs):
    records = records_of("tettevvt")
    pair, other = (scene(0), scene(0, shift=4)), (scene(2), scene(2, shift=6))
    scenes = [*pair, scene(1), other[0], scene(3), other[1], scene(4), scene(5)]
    monkeypatch.setattr("ramstrans.data.audit.leaks.MAX_PAIRS", max_pairs)
    alike = list(alike_across_splits(records, prints_of(records, scenes)))
    assert alike == [records[:2], [records[3], records[5]]]


def test_findings_are_of_one_class_and_say_what():
    crow, wren = records_of("te", 0), records_of("te", 1)
    bird = [Record(Path(f"7-{split}.jpg"), 0, split, group="bird 7") for split in ("train", "test")]
    images = ImageSet(("crow", "wren"), (*crow, *wren, *bird))
    times = at([*crow, *wren, *bird], [0, 1000, 3, 10, None, None])
    prints = prints_of(images.records, [scene(seed) for seed in range(6)])
    found = {finding.kind: finding for finding in leak_findings(images, times, prints)}
    assert found.keys() == {"group across splits", "taken together across splits"}
    group, together = found.values()
    assert (group.severity, group.paths, group.detail) == (
        "error",
        tuple(record.path for record in bird),
        "train, test: 'bird 7'",
    )
    assert together.paths == tuple(record.path for record in wren)
    assert together.detail == "train, test: 'wren', 2 images in 7 s from 2026-05-31 12:00:03"


@pytest.mark.realdata
def test_a_bird_photographed_twice_in_cub50():
    """Two shots of one cuckoo in one hand, in different splits, which are no near-duplicates."""
    needs(CUB50)
    paths = [
        next(CUB50.glob(f"images/*/Black_Billed_Cuckoo_{name}.jpg"))
        for name in ("0051_795318", "0075_795298")
    ]
    records = [Record(path, 0, split) for path, split in zip(paths, ("test", "train"), strict=True)]
    prints = prints_of(records, [Image.open(path) for path in paths])
    assert list(alike_across_splits(records, prints)) == [records]

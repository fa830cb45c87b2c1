import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from ramstrans.data.audit import duplicates as module
from ramstrans.data.audit.duplicates import (
    MAX_DISTANCE,
    MIN_COSINE,
    fingerprint,
    mirrored,
    near_groups,
)


def scene(seed, size=(151, 113)):
    """Soft blobs of colour, like a photograph from a distance."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image, quality):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def near(first, second):
    return near_groups(np.stack([fingerprint(first), fingerprint(second)])) == [[0, 1]]


def slow_near_groups(prints):
    """Each compared with each; groups that share an image are merged until none do."""
    groups = []
    for (i, one), (j, other) in itertools.combinations(enumerate(prints.astype(np.float64)), 2):
        versions = [one, mirrored(prints[i : i + 1])[0].astype(np.float64)]
        close = [((v > 0) != (other > 0)).sum() <= MAX_DISTANCE and v @ other >= MIN_COSINE for v in versions]
        if one.any() and other.any() and any(close):
            joined = [group for group in groups if group & {i, j}]
            groups = [group for group in groups if not group & {i, j}] + [{i, j}.union(*joined)]
    return sorted(map(sorted, groups))


def test_the_fingerprint_is_the_low_end_of_the_cosine_transform():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    frequency, sample = np.arange(32)[:, None], np.arange(32)
    transform = np.cos(np.pi * (2 * sample + 1) * frequency / 64) * np.where(frequency, 1 / 4, 1 / 32**0.5)
    frequencies = transform @ pixels @ transform.T
    order = sorted(((r, c) for r in range(32) for c in range(32)), key=lambda p: (p[0] ** 2 + p[1] ** 2, p))
    lowest = np.array([frequencies[index] for index in order[1:65]])
    expected = lowest / np.linalg.norm(lowest)
    assert fingerprint(Image.fromarray(pixels)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_a_mirrored_image_has_the_mirrored_fingerprint(seed):
    image = scene(seed)
    assert fingerprint(ImageOps.mirror(image)) == pytest.approx(mirrored(fingerprint(image)), abs=5e-3)


CHANGES = {
    "as it is": lambda image: image,
    "half": lambda image: image.resize((75, 56)),
    "larger": lambda image: image.resize((331, 247)),
    "squeezed": lambda image: image.resize((113, 151)),
    "compressed": lambda image: encoded(image, 20),
    "mirrored": ImageOps.mirror,
    "grey": lambda image: image.convert("L"),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "cut": lambda image: image.crop((1, 1, 150, 112)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", range(3))
def test_a_changed_image_stays_near(change, seed):
    assert near(scene(seed), CHANGES[change](scene(seed)))


def test_other_images_are_not_near():
    prints = np.stack([fingerprint(scene(seed)) for seed in range(40)])
    assert not near_groups(prints)
    upside_down = [fingerprint(ImageOps.flip(scene(seed))) for seed in range(40)]
    assert not near_groups(np.stack([*prints, *upside_down]))


def test_flat_images_are_near_to_none():
    faint = Image.fromarray(np.random.default_rng(0).integers(99, 103, (50, 50), dtype=np.uint8))
    for flat in (Image.new("RGB", (50, 50), "white"), Image.new("L", (1, 1)), faint):
        assert not fingerprint(flat).any()
        assert not near(flat, flat)


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), num_flips=st.integers(0, 12), mirror=st.booleans())
def test_groups_are_those_of_the_slow_twin(seed, num_flips, mirror):
    rng = np.random.default_rng(seed)
    prints = rng.normal(size=(11, 64))
    for copy in (3, 5, 7):  # near to 2, 4 and 6, or just not
        prints[copy] = prints[copy - 1] + rng.normal(size=64) * rng.choice([0.05, 0.3, 0.4])
        prints[copy, rng.choice(64, num_flips, replace=False)] *= -0.1
    prints[9] = 0
    unit = prints / np.maximum(np.linalg.norm(prints, axis=1, keepdims=True), 1e-9)
    unit = unit.astype(np.float16)
    if mirror:
        unit[3::2] = mirrored(unit[3::2])
    assert near_groups(unit) == slow_near_groups(unit)


def test_seven_signs_may_differ_and_eight_may_not():
    rng = np.random.default_rng(3)
    base = rng.normal(size=64)
    small = np.argsort(np.abs(base))  # the cosine hardly sees their signs
    for count in (MAX_DISTANCE, MAX_DISTANCE + 1):
        first, second = base.copy(), base.copy()
        first[small[:count]] = second[small[:count]] = 0.01
        second[small[:count]] *= -1
        prints = np.stack([first, second])
        prints = (prints / np.linalg.norm(prints, axis=1, keepdims=True)).astype(np.float16)
        assert bool(near_groups(prints)) == (count == MAX_DISTANCE)


def test_blocks_of_any_size_give_the_same_groups(monkeypatch):
    rng = np.random.default_rng(0)
    prints = np.tile(rng.normal(size=(7, 64)), (5, 1))  # copies lie in different blocks
    unit = (prints / np.linalg.norm(prints, axis=1, keepdims=True)).astype(np.float16)
    groups = [list(range(start, 35, 7)) for start in range(7)]
    for max_pairs in (1, 100, 1 << 22):
        monkeypatch.setattr(module, "MAX_PAIRS", max_pairs)
        assert near_groups(unit) == groups


@pytest.mark.parametrize("count", [0, 1])
def test_few_images_have_no_groups(count):
    assert near_groups(np.ones((count, 64), np.float16)) == []

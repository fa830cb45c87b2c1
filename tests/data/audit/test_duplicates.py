import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ramstrans.data.audit import duplicates as module
from ramstrans.data.audit.duplicates import (
    MAX_DISTANCE,
    MIN_COSINE,
    _Groups,
    fingerprint,
    mirrored,
    near_groups,
)


def scene(seed, size=(151, 113)):
    """Soft blobs of colour, as a photograph has from afar."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image, quality):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def near(first, second):
    return near_groups(np.stack([fingerprint(first), fingerprint(second)])) == [[0, 1]]


def connected(pairs, count):
    array = np.array(pairs, np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(array)), array.T), shape=(count, count))
    _, part = connected_components(graph, directed=False)
    parts = [np.flatnonzero(part == number).tolist() for number in range(part.max() + 1)]
    return sorted(group for group in parts if len(group) > 1)


def slow_near_groups(prints):
    """Each compared with each; then the connected parts."""
    found = []
    for (i, one), (j, other) in itertools.combinations(enumerate(prints.astype(np.float64)), 2):
        versions = [one, mirrored(prints[i : i + 1])[0].astype(np.float64)]
        if one.any() and other.any():
            close = [
                ((v > 0) != (other > 0)).sum() <= MAX_DISTANCE and v @ other >= MIN_COSINE for v in versions
            ]
            found += [[i, j]] * any(close)
    return connected(found, len(prints))


def test_the_fingerprint_is_the_low_end_of_the_cosine_transform():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    frequencies = dctn(pixels.astype(float), norm="ortho")
    places = sorted(((r, c) for r in range(32) for c in range(32)), key=lambda p: (p[0] ** 2 + p[1] ** 2, p))
    lowest = np.array([frequencies[place] for place in places[1:65]])
    expected = lowest / np.linalg.norm(lowest)
    assert fingerprint(Image.fromarray(pixels)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_a_mirrored_picture_has_the_mirrored_fingerprint(seed):
    picture = scene(seed)
    assert fingerprint(ImageOps.mirror(picture)) == pytest.approx(mirrored(fingerprint(picture)), abs=5e-3)


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
def test_a_changed_picture_stays_near(change, seed):
    assert near(scene(seed), CHANGES[change](scene(seed)))


def test_other_pictures_are_not_near():
    prints = np.stack([fingerprint(scene(seed)) for seed in range(40)])
    assert not near_groups(prints)
    upside_down = [fingerprint(ImageOps.flip(scene(seed))) for seed in range(40)]
    assert not near_groups(np.stack([*prints, *upside_down]))


def test_flat_pictures_are_near_to_none():
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


def test_seven_signs_may_differ_in_any_bands_and_eight_may_not():
    rng = np.random.default_rng(3)
    base = rng.normal(size=64)
    small = np.argsort(np.abs(base))  # the cosine hardly sees their signs
    for count in (MAX_DISTANCE, MAX_DISTANCE + 1):
        for places in [small[:count], rng.permutation(64)[:count]]:
            first, second = base.copy(), base.copy()
            first[places] = second[places] = 0.01
            second[places] *= -1
            prints = np.stack([first, second])
            prints = (prints / np.linalg.norm(prints, axis=1, keepdims=True)).astype(np.float16)
            assert bool(near_groups(prints)) == (count == MAX_DISTANCE)


def test_many_candidates_are_compared_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    prints = np.repeat(rng.normal(size=(7, 64)), 5, axis=0)
    unit = (prints / np.linalg.norm(prints, axis=1, keepdims=True)).astype(np.float16)
    whole = [list(range(start, start + 5)) for start in range(0, 35, 5)]
    assert near_groups(unit) == whole
    monkeypatch.setattr(module, "_MAX_CANDIDATES", 3)
    assert near_groups(unit) == whole


@pytest.mark.parametrize("count", [0, 1])
def test_few_pictures_have_no_groups(count):
    assert near_groups(np.ones((count, 64), np.float16)) == []


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=12))
def test_groups_are_the_connected_parts(pairs):
    groups = _Groups(13)
    for half in (pairs[::2], pairs[1::2]):
        first, second = np.array(half, np.int64).reshape(-1, 2).T
        groups.connect(first, second)
        assert not groups.are_apart(first, first).any()
    assert [group.tolist() for group in groups.members()] == connected(pairs, 13)


def test_thousands_of_near_copies_are_one_group():
    rng = np.random.default_rng(0)
    prints = rng.normal(size=64) + 0.01 * rng.normal(size=(4001, 64))
    unit = (prints / np.linalg.norm(prints, axis=1, keepdims=True)).astype(np.float16)
    assert near_groups(unit) == [list(range(4001))]


@pytest.mark.slow
def test_a_hundred_thousand_pictures_are_searched():
    rng = np.random.default_rng(0)
    prints = rng.normal(size=(100_003, 64)).astype(np.float32)
    prints[-1] = prints[0]
    unit = (prints / np.linalg.norm(prints, axis=1, keepdims=True)).astype(np.float16)
    assert near_groups(unit) == [[0, 100_002]]

import hashlib
import itertools
import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ramstrans.data.datasets.cub import read_cub
from ramstrans.data.toybirds.drawing import CODED_PARTS, PALETTE, PARTS, draw_bird
from ramstrans.data.toybirds.generator import (
    is_toybirds,
    make_toybirds,
    species_codes,
    species_name,
)
from ramstrans.errors import ConfigError, OutputError

SMALL = {"num_classes": 5, "train_per_class": 3, "test_per_class": 2, "image_size": 67, "seed": 11}
NUM_IMAGES = 5 * (3 + 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "birds"
    make_toybirds(folder, **SMALL)
    return folder


def rows(file):
    """An independent, naive reader of CUB's lists: one tuple of strings a line."""
    return [tuple(line.split(" ")) for line in file.read_text().splitlines()]


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ---- classes ----


def test_species_differ_in_two_parts_at_least_and_in_their_names():
    codes = species_codes(27)
    distances = [sum(a != b for a, b in zip(*pair, strict=True)) for pair in itertools.combinations(codes, 2)]
    assert min(distances) == 2
    assert len({species_name(code) for code in codes}) == 27


@pytest.mark.parametrize("unseen", range(4))
def test_any_three_parts_tell_the_species_and_no_two_do(unseen):
    codes = species_codes(27)
    seen = {code[:unseen] + code[unseen + 1 :] for code in codes}
    assert len(seen) == 27
    assert len({code[:2] for code in seen}) == 9


@pytest.mark.parametrize("num_classes", [2, 7, 20, 27])
def test_first_species_are_a_prefix_and_use_each_colour_about_as_often(num_classes):
    codes = species_codes(num_classes)
    assert codes == species_codes(27)[:num_classes]
    for part in range(len(CODED_PARTS)):
        counts = [sum(code[part] == colour for code in codes) for colour in range(len(PALETTE))]
        assert max(counts) - min(counts) <= 2


def test_names_read_like_birds():
    assert species_name((0, 2, 1, 0)) == "Red_crowned_Blue_billed_Bunting"
    assert all(
        re.fullmatch(r"[A-Z][a-z]+_crowned_[A-Z][a-z]+_billed_[A-Z][a-z]+", species_name(c))
        for c in species_codes(27)
    )


# ---- drawing ----


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), species=st.integers(0, 26), image_size=st.sampled_from([47, 96, 179]))
def test_box_lies_in_the_image_and_holds_every_part(seed, species, image_size):
    image, (x0, y0, x1, y1), parts = draw_bird(
        species_codes(27)[species], image_size, np.random.default_rng(seed)
    )
    assert image.size == (image_size, image_size)
    assert image.mode == "RGB"
    assert 0 < x0 < x1 < image_size
    assert 0 < y0 < y1 < image_size
    assert 0.36 <= max(x1 - x0, y1 - y0) / image_size <= 0.5
    assert set(parts) == set(PARTS)
    assert all(x0 < x < x1 and y0 < y < y1 for x, y in parts.values())


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), species=st.integers(0, 26), image_size=st.sampled_from([97, 256]))
def test_a_far_bird_is_small(seed, species, image_size):
    code = species_codes(27)[species]
    image, (x0, y0, x1, y1), parts = draw_bird(code, image_size, np.random.default_rng(seed), far=True)
    assert image.size == (image_size, image_size)
    assert 0 < x0 < x1 < image_size
    assert 0 < y0 < y1 < image_size
    assert (x1 - x0) * (y1 - y0) < 0.02 * image_size**2
    assert all(x0 < x < x1 and y0 < y < y1 for x, y in parts.values())


def test_a_far_set_says_so_and_the_near_one_is_as_ever(tmp_path):
    few = {"num_classes": 2, "train_per_class": 1, "test_per_class": 1}
    make_toybirds(tmp_path / "far", far=True, **few)
    assert json.loads((tmp_path / "far" / "toybirds.json").read_text())["far"] is True
    assert is_toybirds(tmp_path / "far")
    for record in read_cub(tmp_path / "far").records:
        x0, y0, x1, y1 = record.box
        with Image.open(record.path) as image:
            assert image.size == (1024, 1024)
        assert (x1 - x0) * (y1 - y0) < 0.02 * 1024**2
    make_toybirds(tmp_path / "near", **few)
    made = json.loads((tmp_path / "near" / "toybirds.json").read_text())
    assert made == {"version": 1, **few, "image_size": 176, "seed": 0}


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), species=st.integers(0, 26))
def test_each_coded_part_has_its_colour_where_it_is_said_to_be(seed, species):
    code = species_codes(27)[species]
    image, _, parts = draw_bird(code, 360, np.random.default_rng(seed))
    pixels = np.asarray(image, dtype=float)
    for part, digit in zip(CODED_PARTS, code, strict=True):
        if part == "wing":  # its place is the middle of the wing, between the two bars
            continue
        x, y = parts[part]
        patch = pixels[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].mean(axis=(0, 1))
        assert nearest_colour(patch) == digit, (part, patch)


def nearest_colour(rgb):
    """By hue direction: the light changes brightness and contrast."""
    centred = rgb - rgb.mean()
    palette = np.array(list(PALETTE.values()), dtype=float)
    palette -= palette.mean(axis=1, keepdims=True)
    return int(np.argmax(palette @ centred / np.linalg.norm(palette, axis=1)))


def test_only_the_changed_part_changes():
    def drawn(code):
        drawing = draw_bird(code, 176, np.random.default_rng(5))
        return np.asarray(drawing.image, dtype=int), drawing.parts

    (one, parts), (other, same_parts) = drawn((0, 0, 0, 0)), drawn((0, 0, 0, 1))
    assert parts == same_parts
    ys, xs = np.nonzero(np.abs(one - other).sum(axis=2))
    assert len(ys) > 0
    assert np.hypot(xs + 0.5 - parts["tail"][0], ys + 0.5 - parts["tail"][1]).max() < 10


# ---- files ----


def test_same_arguments_same_bytes(root, tmp_path):
    make_toybirds(tmp_path / "again", **SMALL)
    assert digests(tmp_path / "again") == digests(root)


def test_another_seed_gives_other_images_of_the_same_classes(root, tmp_path):
    make_toybirds(tmp_path / "other", **{**SMALL, "seed": 12})
    one, other = digests(root), digests(tmp_path / "other")
    assert one.keys() == other.keys()
    assert not any(one[name] == other[name] for name in one if name.endswith(".jpg"))
    assert one["classes.txt"] == other["classes.txt"]


def test_an_image_does_not_depend_on_the_number_of_others(root, tmp_path):
    make_toybirds(tmp_path / "fewer", **{**SMALL, "num_classes": 3, "test_per_class": 1})
    fewer, all_of_them = digests(tmp_path / "fewer"), digests(root)
    images = [name for name in fewer if name.endswith(".jpg")]
    assert len(images) == 3 * 4
    assert all(fewer[name] == all_of_them[name] for name in images)


def test_all_images_differ(root):
    images = [digest for name, digest in digests(root).items() if name.endswith(".jpg")]
    assert len(images) == len(set(images)) == NUM_IMAGES


def test_format_as_an_independent_parser_reads_it(root):
    classes = dict(rows(root / "classes.txt"))
    images = dict(rows(root / "images.txt"))
    labels = dict(rows(root / "image_class_labels.txt"))
    splits = dict(rows(root / "train_test_split.txt"))
    boxes = {image: [float(value) for value in box] for image, *box in rows(root / "bounding_boxes.txt")}
    names = dict(rows(root / "parts" / "parts.txt"))
    locs = rows(root / "parts" / "part_locs.txt")
    ids = {str(i) for i in range(1, NUM_IMAGES + 1)}
    assert set(images) == set(labels) == set(splits) == set(boxes) == ids
    assert tuple(names.values()) == PARTS
    assert [(image, part) for image, part, *_ in locs] == list(itertools.product(images, names))
    assert sorted(splits.values()) == ["0"] * 10 + ["1"] * 15
    for image, path in images.items():
        assert path.split("/")[0] == classes[labels[image]]
        with Image.open(root / "images" / path) as opened:
            assert (opened.format, opened.size, opened.mode) == ("JPEG", (67, 67), "RGB")
    for image, _, x, y, visible in locs:
        left, top, width, height = boxes[image]
        assert 0 <= left <= float(x) <= left + width <= 67
        assert 0 <= top <= float(y) <= top + height <= 67
        assert visible == "1"


def test_the_cub_reader_reads_what_was_drawn(root):
    images = read_cub(root)
    assert images.class_names == tuple(name for _, name in rows(root / "classes.txt"))
    assert set(images.counts("train").values()) == {3}
    assert set(images.counts("test").values()) == {2}
    record = images.of_split("test")[0]  # class 0, number 3
    drawing = draw_bird(species_codes(1)[0], 67, np.random.default_rng((11, 0, 3)))
    assert record.box == pytest.approx(drawing.box, abs=0.011)
    assert {part.name: pytest.approx((part.x, part.y), abs=0.006) for part in record.parts} == drawing.parts


# ---- complete, half-done and foreign folders ----


def test_recognises_its_own_folder(root):
    assert is_toybirds(root)
    assert not is_toybirds(root / "images")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: next(folder.glob("images/*/*.jpg")).unlink(),
        lambda folder: (folder / "toybirds.json").unlink(),
        lambda folder: (folder / "toybirds.json").write_text("{"),
        lambda folder: (folder / "toybirds.json").write_text("[1]"),
        lambda folder: (folder / "toybirds.json").write_bytes(b"\xff"),
        lambda folder: (folder / "toybirds.json").write_text('{"version": 1, "num_classes": 5}'),
        lambda folder: (folder / "toybirds.json").write_text(json.dumps({"version": 0, **SMALL})),
    ],
    ids=[
        "image gone",
        "marker gone",
        "marker cut",
        "marker a list",
        "marker binary",
        "marker short",
        "old version",
    ],
)
def test_a_damaged_folder_is_neither_taken_nor_overwritten(root, tmp_path, damage):
    folder = shutil.copytree(root, tmp_path / "birds")
    damage(folder)
    before = digests(folder)
    assert not is_toybirds(folder)
    with pytest.raises(OutputError, match="not empty"):
        make_toybirds(folder)
    assert digests(folder) == before


def test_progress_counts_every_image(tmp_path):
    seen = []
    make_toybirds(tmp_path / "birds", **SMALL, progress=lambda *call: seen.append(call))
    assert seen == [(i, NUM_IMAGES, "drawing toybirds") for i in range(1, NUM_IMAGES + 1)]


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def interrupt(done, *_):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_toybirds(tmp_path / "birds", **SMALL, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_missing_parents_are_created(tmp_path):
    folder = tmp_path / "deep" / "er" / "birds"
    make_toybirds(folder, num_classes=2, train_per_class=1, test_per_class=1, image_size=32)
    assert is_toybirds(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_classes", 1),
        ("num_classes", 28),
        ("train_per_class", 0),
        ("test_per_class", 0),
        ("image_size", 31),
        ("seed", -1),
    ],
)
def test_bad_arguments(tmp_path, name, value):
    with pytest.raises(ConfigError, match=rf"{name} is {value}; give \d+ to \d+"):
        make_toybirds(tmp_path / "birds", **{**SMALL, name: value})
    assert list(tmp_path.iterdir()) == []

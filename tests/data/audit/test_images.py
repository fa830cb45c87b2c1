import threading
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image, ImageOps

from ramstrans.data.audit import images as images_module
from ramstrans.data.audit.boxes_classes import FEW_TRAINING_IMAGES
from ramstrans.data.audit.findings import sort_findings
from ramstrans.data.audit.images import audit_images, read_facts
from ramstrans.data.datasets.cub import read_cub
from ramstrans.data.records import ImageSet, Part, Record
from ramstrans.errors import DataError, UnreadableImageError
from tests.shared import CUB50, needs

SIZE = (113, 97)
NAMES = ("crow", "wren")
PLENTY = 64


def scene(seed, size=SIZE):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def make(tmp_path):
    """Saves an image and returns its record."""

    def make(name, image, label=0, split="train", box=None, parts=(), **options):
        image.save(tmp_path / name, **options)
        return Record(tmp_path / name, label, split, box, parts)

    return make


@pytest.fixture
def clean(make):
    """Two classes of five training images and one of test, with nothing to find."""
    return tuple(
        make(f"{label}-{i}.png", scene(10 * label + i), label, "train" if i < FEW_TRAINING_IMAGES else "test")
        for label in range(2)
        for i in range(FEW_TRAINING_IMAGES + 1)
    )


def audit(*records, **options):
    return audit_images(ImageSet(NAMES, records), **{"smallest_side": PLENTY, **options})


def found(findings, kind):
    return [[path.name for path in finding.paths] for finding in findings if finding.kind == kind]


def test_nothing_to_find(clean):
    calls = []
    assert audit(*clean, progress=lambda *call: calls.append(call)) == []
    assert calls == [(done, 12, "checking files") for done in range(1, 13)]


def test_a_broken_file_hides_nothing(clean, make):
    broken = clean[3].path
    broken.write_bytes(broken.read_bytes()[:999])
    clean[4].path.unlink()
    copy = make("copy.png", scene(0), 0, "test")
    findings = audit(*clean, copy)
    assert [finding.kind for finding in findings] == [
        *["unreadable"] * 2,
        "duplicate across splits",
        "class with few training images",
    ]
    assert found(findings, "unreadable") == [["0-3.png"], ["0-4.png"]]
    assert [finding.detail for finding in findings[:2]] == ["truncated file", "no such file"]
    assert findings[-1].detail == "'crow' has 3"


def test_all_files_broken(clean):
    for record in clean:
        record.path.write_bytes(b"")
    counts = Counter(finding.kind for finding in audit(*clean))
    assert counts == {"unreadable": 12, "class without training images": 2}


@pytest.mark.parametrize(
    ("label", "split", "kind"),
    [
        (0, "train", "duplicate"),
        (0, "val", "duplicate across splits"),
        (0, "test", "duplicate across splits"),
        (1, "train", "duplicate with two labels"),
        (1, "test", "duplicate with two labels"),
    ],
)
@pytest.mark.parametrize("is_near", [False, True])
def test_duplicates(clean, make, label, split, kind, is_near):
    image = ImageOps.mirror(scene(0, (211, 181))) if is_near else scene(0)
    findings = audit(*clean, make("copy.png", image, label, split))
    assert [finding.kind for finding in findings] == [f"near-{kind}" if is_near else kind]
    assert found(findings, findings[0].kind) == [["0-0.png", "copy.png"]]
    shown = {"train 'crow'": None, f"{split} '{NAMES[label]}'": None}
    assert findings[0].detail == ", ".join(shown)


def test_other_metadata_are_the_same_pixels(clean, make):
    copy = make("copy.png", scene(0), pnginfo=None, dpi=(300, 300))
    assert copy.path.read_bytes() != clean[0].path.read_bytes()
    assert found(audit(*clean, copy), "duplicate") == [["0-0.png", "copy.png"]]


def test_a_file_that_is_listed_twice_is_one_image(clean):
    again = clean[0]._replace(split="test", label=1)
    calls = []
    findings = audit(*clean, again, progress=lambda _, total, __: calls.append(total))
    assert found(findings, "duplicate with two labels") == [["0-0.png", "0-0.png"]]
    assert calls == [12] * 12


def test_copies_and_near_copies_make_one_near_group(clean, make):
    copy = make("copy.png", scene(0))
    near = make("near.jpg", scene(0), split="test", quality=60)
    findings = audit(*clean, copy, near)
    assert found(findings, "duplicate") == [["0-0.png", "copy.png"]]
    assert found(findings, "near-duplicate across splits") == [["0-0.png", "copy.png", "near.jpg"]]


def test_flat_images_are_duplicates_only_to_the_pixel(clean, make):
    white = [
        make(f"{i}.png", Image.new("RGB", SIZE, color)) for i, color in enumerate(["red", "red", "#fe0000"])
    ]
    findings = audit(*clean, *white)
    assert {finding.kind for finding in findings} == {"duplicate"}
    assert found(findings, "duplicate") == [["0.png", "1.png"]]


def test_greyscale(clean, make):
    grey = scene(90).convert("L")
    records = [
        make("one.jpg", grey),
        make("three.png", scene(91).convert("L").convert("RGB")),
        make("sixteen.png", Image.fromarray(np.arange(113 * 97, dtype=np.uint16).reshape(97, 113))),
        make("nearly.png", Image.merge("RGB", [grey, grey, grey.point(lambda value: min(value + 1, 255))])),
    ]
    findings = [finding for finding in audit(*clean, *records) if finding.kind == "greyscale"]
    assert [finding.paths[0].name for finding in findings] == ["one.jpg", "three.png", "sixteen.png"]
    assert {finding.detail for finding in findings} == {"no colour"}


def test_sizes(clean, make):
    records = [
        make("tiny.png", scene(90, (63, 113))),
        make("enough.png", scene(91, (64, 113))),
        make("long.png", scene(92, (211, 70))),
        make("not too long.png", scene(93, (210, 70))),
    ]
    findings = audit(*clean, *records)
    assert {finding.kind: finding.detail for finding in findings} == {
        "tiny": "63 x 113 pixels, the shorter side below 64",
        "elongated": "211 x 70 pixels, over 3 to 1",
    }
    assert (found(findings, "tiny"), found(findings, "elongated")) == ([["tiny.png"]], [["long.png"]])


def test_boxes_and_parts_refer_to_the_image_after_exif_rotation(clean, make):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored 113 x 97, seen 97 x 113
    parts = (Part("beak", 97, 113), Part("tail", 98, 20))
    turned = make("turned.jpg", scene(90), box=(0, 0, 97, 113), parts=parts, exif=exif)
    wide = make("wide.jpg", scene(91), box=(0, 0, 113, 97))
    findings = audit(*clean, turned, wide, turned._replace(box=(0, 0, 113, 97)))
    edge = [finding for finding in findings if finding.kind == "box past the edge"]
    assert [(finding.paths[0].name, finding.detail) for finding in edge] == [
        ("turned.jpg", "(0, 0, 113, 97) in 97 x 113 pixels")
    ]
    parts = [finding.detail for finding in findings if finding.kind == "part outside"]
    assert parts == ["tail at (98, 20) in 97 x 113 pixels"] * 2  # of each record


def test_classes(clean, make):
    few = [record for record in clean if (record.label, record.split) != (1, "test")][:-1]
    more = [make(f"more-{i}.png", scene(100 + i)) for i in range(36)]
    findings = audit(*few, *more)
    assert {finding.kind: finding.detail for finding in findings} == {
        "class with few training images": "'wren' has 4",
        "class without test images": "'wren'",
        "imbalance": "'crow' has 41 training images, 'wren' 4",
    }
    assert not audit(*clean, *more)  # 41 to 5


def test_without_a_test_split_no_class_lacks_it(clean):
    assert not audit(*[record for record in clean if record.split == "train"])


def test_facts(clean):
    facts = read_facts(clean[0].path)
    assert (facts.size, facts.is_grey) == ((97, 113), False)
    clean[2].path.write_bytes(b"")
    with pytest.raises(UnreadableImageError, match="empty file"):
        read_facts(clean[2].path)


def test_the_pixel_limit_is_passed_on(clean):
    assert len(found(audit(*clean, max_pixels=113 * 97 - 1), "unreadable")) == 12


def test_generated_birds_are_clean(birds):
    findings = audit_images(read_cub(birds), smallest_side=48)
    assert {finding.kind for finding in findings} == {"class with few training images"}  # four each


@pytest.mark.slow
@pytest.mark.realdata
def test_fifty_classes_of_the_real_one():
    needs(CUB50)
    root = CUB50.parent
    rows = [line.split() for line in (CUB50 / "images.txt").read_text().splitlines()]
    names = {CUB50 / "images" / path: number for number, path in rows}
    ids = defaultdict(list)
    for finding in sort_findings(audit_images(read_cub(root))):
        ids[finding.kind].append(tuple(names[path] for path in finding.paths))
    assert ids.pop("tiny")[:2] == [("10",), ("22",)]
    alike = ids.pop("alike across splits")
    assert len(alike) == 9
    assert {("690", "709"), ("1710", "1734")} <= set(alike)  # the same bird in the same moment
    assert ids == {
        "near-duplicate across splits": [("1413", "1460")],
        "near-duplicate": [("72", "97"), ("1748", "1750")],
        "box past the edge": [("960",), ("999",), ("1218",)],
        "greyscale": [("448",), ("1401",)],
    }


def test_a_file_that_hangs_is_named(birds, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(images_module, "read_facts", lambda *_, **__: released.wait(60))
    with pytest.raises(DataError, match=r"\.jpg: .*data\.read_timeout"):
        audit_images(read_cub(birds), timeout=0.2)
    released.set()

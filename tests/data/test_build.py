import csv
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from ramstrans.data import build as module
from ramstrans.data.build import (
    READERS,
    build_cache,
    build_image_set,
    build_preprocessing,
    check_cache_room,
    drop_unreadable,
    fingerprint,
    read_image_set,
)
from ramstrans.data.config import DataConfig
from ramstrans.data.datasets.cub import read_cub
from ramstrans.data.detect import detect_format
from ramstrans.data.preprocessing import Reading
from ramstrans.data.reading.cache import DiskCache, MemoryCache
from ramstrans.data.records import ImageSet, Record
from ramstrans.data.sharding.writer import write_shards
from ramstrans.data.splits import hold_out
from ramstrans.errors import ConfigError, DataError
from tests.data.fakes import FAKES, make_fgvc_aircraft, make_inaturalist2017, make_inaturalist2021
from tests.data.fakes.hugging_face import quiet_library


def as_table(colors, tmp_path):
    """The training images of `colors` in a table without splits."""
    path = tmp_path / "birds.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows((image, image.parent.name) for image in sorted((colors / "train").glob("*/*.png")))
    return path


def as_shards(root, folder):
    images = hold_out(read_cub(root), 0.4, 0, "val")
    write_shards(images, folder / "shards", root=root)
    return folder / "shards"


MAKERS = {
    "cub": lambda birds, _colors, _tmp_path: birds,
    "toybirds": lambda birds, _colors, _tmp_path: birds,
    "folder": lambda _birds, colors, _tmp_path: colors / "train",
    "table": lambda _birds, colors, tmp_path: as_table(colors, tmp_path),
    "hugging_face": lambda _birds, colors, _tmp_path: colors,
    "shards": lambda birds, _colors, tmp_path: as_shards(birds, tmp_path),
} | {name: lambda _birds, _colors, tmp_path, make=make: make(tmp_path) for name, make in FAKES.items()}
"""A root for each format; `folder` and `table` have no splits."""


def split_of(images):
    return {record.path: record.split for record in images.records}


@pytest.mark.parametrize("name", READERS)
def test_every_format_gets_all_splits(name, birds, colors, tmp_path, monkeypatch):
    if name == "hugging_face":
        quiet_library(tmp_path, monkeypatch)
    root = MAKERS[name](birds, colors, tmp_path)
    images = build_image_set(DataConfig(name, root, val_fraction=0.4, test_fraction=0.25))
    assert len(images.class_names) == 3
    for split in ("train", "val", "test"):
        assert min(images.counts(split).values()) > 0
    assert len(split_of(images)) == len(images.records)


def test_a_given_test_split_is_kept_and_validation_comes_from_training(birds):
    before = split_of(read_cub(birds))
    after = split_of(build_image_set(DataConfig("cub", birds, val_fraction=0.25)))
    assert Counter(after.values()) == {"train": 9, "val": 3, "test": 6}
    changed = {(before[path], after[path]) for path in before if before[path] != after[path]}
    assert changed == {("train", "val")}


def test_given_splits_are_never_drawn(colors, tmp_path):
    root = tmp_path / "colors"
    shutil.copytree(colors, root)
    shutil.copytree(colors / "test", root / "val")
    images = build_image_set(DataConfig("folder", root, val_fraction=0.5, test_fraction=0.5))
    assert all(record.path.relative_to(root).parts[0] == record.split for record in images.records)
    assert len(images.of_split("train")) == 12


def test_a_root_is_needed_to_read_anything_but_toybirds():
    for name in set(READERS) - {"toybirds"}:
        with pytest.raises(ConfigError, match=f"data.name is '{name}' but no --data.root was given"):
            build_image_set(DataConfig(name))


def test_nothing_is_held_out_if_the_fraction_is_0(birds):
    images = build_image_set(DataConfig("cub", birds, val_fraction=0))
    assert Counter(split_of(images).values()) == {"train": 12, "test": 6}


def test_the_draw_depends_on_the_seed_alone(colors):
    def draw(seed):
        config = DataConfig("folder", colors / "train", val_fraction=0.5, split_seed=seed)
        return split_of(build_image_set(config))

    assert draw(0) == draw(0)
    assert any(draw(0) != draw(seed) for seed in range(1, 5))


def test_toybirds_are_drawn_if_there_are_none(tmp_path, monkeypatch):
    calls = []

    def draw(root, *, progress):
        calls.append(root)
        progress(1, 2, "drawing toybirds")
        raise DataError("drawn")

    monkeypatch.setattr("ramstrans.data.build.make_toybirds", draw)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="drawn"):
        build_image_set(DataConfig(), progress=lambda *call: calls.append(call))
    assert [str(calls[0]), calls[1]] == ["runs/toybirds-data", (1, 2, "drawing toybirds")]


def test_toybirds_are_not_drawn_over_photographs(colors):
    before = sorted(colors.rglob("*"))
    with pytest.raises(DataError, match=r"--data\.name folder"):
        build_image_set(DataConfig("toybirds", colors))
    assert sorted(colors.rglob("*")) == before


def test_unreadable_files_stop_and_are_named(with_broken_file):
    root, broken = with_broken_file
    config = DataConfig("folder", root)
    with pytest.raises(DataError, match="1 image file cannot be read") as caught:
        drop_unreadable(build_image_set(config), config)
    assert str(broken) in str(caught.value)
    assert "on_unreadable skip" in str(caught.value)


def test_unreadable_files_are_left_out_and_logged(with_broken_file, caplog):
    root, broken = with_broken_file
    config = DataConfig("folder", root, on_unreadable="skip", val_fraction=0)
    images, calls = build_image_set(config), []
    kept, errors = drop_unreadable(images, config, lambda *call: calls.append(call))
    assert [record.path for record in set(images.records) - set(kept.records)] == [broken]
    assert [error.path for error in errors] == [broken]
    assert caplog.messages == [f"left out: {errors[0]}"]
    assert calls[-1] == (18, 18, "checking files")


@pytest.mark.parametrize(
    ("fields", "image_size", "zoom_source", "resize", "crop"),
    [
        ({}, (224, 224), "input", 256, (224, 224)),
        ({}, (224, 224), "full", 512, (448, 448)),
        ({}, (24, 40), "full", 91, (48, 80)),
        ({"crop": 35}, (24, 24), "full", 40, (35, 35)),
        ({"crop": (31, 53)}, (24, 40), "input", 61, (31, 53)),
        ({"resize": (600, 500), "crop": 448}, (224, 224), "input", (600, 500), (448, 448)),
        ({"resize": 48}, (48, 48), "input", 48, (48, 48)),
        ({}, (224, 224), "native", 256, (224, 224)),
    ],
)
def test_missing_sizes_are_filled_in(fields, image_size, zoom_source, resize, crop):
    preprocessing = build_preprocessing(DataConfig(**fields), image_size, zoom_source)
    assert (preprocessing.resize, preprocessing.crop) == (resize, crop)
    assert preprocessing.zoom_pixels == (4_000_000 if zoom_source == "native" else None)


@pytest.mark.parametrize(
    ("fields", "warned"),
    [
        ({"crop": 64, "resize": 512}, True),  # 1/64 of a square photograph
        ({"crop": 64, "resize": (512, 640)}, True),
        ({"crop": 64, "resize": 128}, False),
        ({"crop": 64, "resize": 512, "fit": "squash"}, False),
        ({}, False),
    ],
)
def test_a_crop_that_sees_very_little_is_warned_of(fields, warned, caplog):
    build_preprocessing(DataConfig(**fields), (32, 32), "input")
    assert len(caplog.messages) == warned
    if fields.get("resize") == 512 and warned:
        assert "data.crop 64x64 with data.resize 512 sees at most 1.6 % of a photograph" in caplog.text


@pytest.mark.parametrize(
    "fields",
    [
        {"resize": 47, "crop": 48},
        {"resize": (48, 47), "crop": 48},
        {"resize": (47, 480), "crop": (48, 31)},
        {"resize": 63},
        {"crop": 0},
        {"crop": -5, "resize": 5},
    ],
)
def test_a_crop_that_does_not_fit_is_refused(fields):
    with pytest.raises(ConfigError):
        build_preprocessing(DataConfig(**fields), (32, 32), "full")


@pytest.mark.parametrize(
    ("resize", "fit", "needed"), [(10, "crop", 300), ((10, 20), "squash", 600), ((10, 20), "pad", 300)]
)
def test_the_cache_needs_room_for_what_it_does_not_hold(tmp_path, monkeypatch, resize, fit, needed):
    """Two images, 3 bytes per pixel, one of which is in the cache already."""
    images = ImageSet(("a",), tuple(Record(tmp_path / name, 0, "train") for name in ("1.png", "2.png")))
    for record in images.records:
        Image.new("RGB", (20, 10)).save(record.path)
    config, reading = DataConfig(cache="disk", cache_dir=tmp_path / "cache"), Reading(resize, fit)
    asked = []
    monkeypatch.setattr(module, "check_room", lambda *arguments: asked.append(arguments))
    check_cache_room(images, config, reading)
    DiskCache(tmp_path / "cache").read(tmp_path / "1.png", reading)
    check_cache_room(images, config, reading)
    assert [(folder, num_bytes) for folder, num_bytes, _ in asked] == [
        (tmp_path / "cache", 2 * needed),
        (tmp_path / "cache", needed),
    ]
    check_cache_room(images, DataConfig(), reading)
    check_cache_room(images, config, Reading(resize, fit, zoom_pixels=7))
    assert len(asked) == 2


@pytest.mark.parametrize("is_read_once", [False, True])
def test_the_config_chooses_the_cache(tmp_path, monkeypatch, is_read_once):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert build_cache(DataConfig(), is_read_once=is_read_once) is None
    assert not (tmp_path / "caches").exists()
    in_memory = build_cache(DataConfig(cache="memory"), is_read_once=is_read_once)
    assert in_memory is None if is_read_once else isinstance(in_memory, MemoryCache)
    for given, folder in (
        (tmp_path / "kept", tmp_path / "kept"),
        (None, tmp_path / "caches/ramstrans/images"),
    ):
        on_disk = build_cache(DataConfig(cache="disk", cache_dir=given), is_read_once=is_read_once)
        assert isinstance(on_disk, DiskCache)
        assert on_disk.folder == Path(folder)
        assert folder.is_dir()


def test_the_fingerprint_moves_with_the_set_and_changes_with_its_splits(colors, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(colors, moved)

    def of(root, **fields):
        config = DataConfig("folder", root, **{"val_fraction": 0.25} | fields)
        return fingerprint(build_image_set(config), config)

    assert of(moved) == of(colors)
    assert of(moved, split_seed=1) != of(colors)
    (moved / "test" / "Azure_tit" / "1.png").unlink()
    assert of(moved) != of(colors)


def test_the_format_is_detected(birds, colors, tmp_path):
    assert detect_format(birds) == "toybirds"
    (tmp_path / "CUB_200_2011").symlink_to(birds)
    assert detect_format(tmp_path) == "cub"
    assert detect_format(colors) == "folder"
    assert detect_format(tmp_path / "list.parquet") == "table"
    assert detect_format(tmp_path / "nowhere") == "folder"
    assert detect_format(tmp_path / "birds.v2") == "folder"
    (tmp_path / "birds.zip").touch()
    assert detect_format(tmp_path / "birds.zip") == "table"  # its reader says to unpack it


@pytest.mark.parametrize("name", FAKES)
def test_published_formats_are_detected(tmp_path, name):
    assert detect_format(FAKES[name](tmp_path)) == name


@pytest.mark.parametrize("make", [make_inaturalist2017, make_inaturalist2021])
def test_all_years_of_inaturalist_are_detected(tmp_path, make):
    assert detect_format(make(tmp_path)) == "inaturalist"


@pytest.mark.parametrize("landmark", ["dataset_dict.json", "state.json"])
def test_what_datasets_saved_is_detected(tmp_path, landmark):
    (tmp_path / landmark).touch()
    assert detect_format(tmp_path) == "hugging_face"


def test_readers_get_their_options(tmp_path):
    make_fgvc_aircraft(tmp_path)
    config = DataConfig("fgvc_aircraft", tmp_path, aircraft_level="manufacturer")
    assert build_image_set(config).class_names == ("Boeing", "McDonnell Douglas")
    make_inaturalist2021(make_inaturalist2021(tmp_path, "train"), "train_mini")
    for folder in ("train", "train_mini"):
        images = build_image_set(DataConfig("inaturalist", tmp_path, train_folder=folder))
        assert images.of_split("train")[0].path.parents[1].name == folder
        assert len(images.hierarchy) == 3  # kept where a validation split is held out


def lists_of(root):
    """All files that are not images."""
    return sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".jpg")


DAMAGES = {
    "empty": lambda _: b"",
    "half": lambda content: content[: len(content) // 2],
    "bytes": lambda content: content[:150] + b"\xff\x00\xfe" + content[153:],
    "line": lambda content: b"\n".join(content.split(b"\n")[1:]),
    "fields": lambda content: content.replace(b"\n", b" 7\n"),
}


def outcome(config):
    """Why a data set cannot be read, or an empty string."""
    try:
        images = build_image_set(config)
    except DataError as error:
        return str(error)
    assert all(record.path.is_file() for record in images.records)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAKES)
def test_damaged_lists_are_one_line_errors_or_make_no_difference_but_some_are_noticed(name, tmp_path):
    root = FAKES[name](tmp_path)
    noticed = set()
    for file in lists_of(root):
        content = file.read_bytes()
        for damage, change in DAMAGES.items():
            file.write_bytes(change(content))
            line = outcome(DataConfig(name, root))
            assert "\n" not in line
            if str(root) in line:
                noticed.add(damage)
        file.write_bytes(content)
    assert noticed >= {"empty", "half"}


@pytest.mark.parametrize("name", FAKES)
def test_a_missing_image_is_named(tmp_path, name):
    root = FAKES[name](tmp_path)
    gone = build_image_set(DataConfig(name, root)).records[3].path
    gone.unlink()
    with pytest.raises(DataError, match=f"{gone.name} does not exist"):
        build_image_set(DataConfig(name, root))


@pytest.mark.parametrize("name", ["cub", "table", "stanford_cars", "shards"])
def test_lists_are_read_again_after_a_transient_error(name, birds, colors, tmp_path, opening_fails, caplog):
    config = DataConfig(name, MAKERS[name](birds, colors, tmp_path))
    expected = build_image_set(config)
    failed = opening_fails()
    assert build_image_set(config) == expected
    assert f"{failed[0]}: Input/output error; retry 1 of 4" in caplog.text


def photographs(root, counts, split=""):
    """Files that no reader opens, `counts` of each class."""
    for name, count in counts.items():
        (root / split / name).mkdir(parents=True)
        for index in range(count):
            (root / split / name / f"{index}.jpg").touch()
    return root


@pytest.mark.parametrize(
    ("count", "fraction", "message"),
    [
        (1, 0.2, "test_fraction 0.2 holds out no image: no class has a second image"),
        (12, 0.001, r"holds out no image: the largest class has 12 images; give 0\.09 or more, or"),
    ],
)
def test_an_empty_test_split_is_an_error_before_anything_else(tmp_path, count, fraction, message):
    root = photographs(tmp_path, {"crow": count, "wren": count})
    with pytest.raises(DataError, match=message):
        build_image_set(DataConfig("folder", root, test_fraction=fraction))
    enough = DataConfig("folder", root, test_fraction=0.09, val_fraction=0)
    if count == 12:
        assert len(build_image_set(enough).of_split("test")) >= 1


def test_one_image_per_class_is_enough_beside_a_test_split(tmp_path, caplog):
    root = photographs(photographs(tmp_path, {"crow": 1, "wren": 1}, "train"), {"crow": 3, "wren": 1}, "test")
    images = build_image_set(DataConfig("folder", root))
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [2, 0, 4]
    assert "data.val_fraction 0.1 holds out no image: no class has a second image" in caplog.text
    assert "the last epoch is kept" in caplog.text


def test_no_validation_on_purpose_is_no_warning(tmp_path, caplog):
    root = photographs(tmp_path, {"crow": 12, "wren": 12})
    build_image_set(DataConfig("folder", root, val_fraction=0, test_fraction=0.5))
    assert not caplog.records


def test_test_images_that_cannot_be_read_are_an_error_before_training(colors, tmp_path):
    root = tmp_path / "colors"
    shutil.copytree(colors, root)
    for path in root.glob("test/*/*.png"):
        path.write_bytes(b"")
    config = DataConfig("folder", root, on_unreadable="skip", val_fraction=0)
    with pytest.raises(DataError, match=r"none of the 6 test images can be read, e\.g\. .*: empty file"):
        drop_unreadable(build_image_set(config), config)


def test_folds_take_turns_as_the_test_split(tmp_path):
    root = photographs(tmp_path, {"crow": 6, "wren": 9})
    tested = []
    for fold in (1, 2, 3):
        images = build_image_set(DataConfig("folder", root, folds=3, fold=fold, val_fraction=0.25))
        assert images.counts("test") == {"crow": 2, "wren": 3}
        assert images.of_split("val")
        tested += [record.path for record in images.of_split("test")]
    assert len(set(tested)) == 15


def test_rows_without_a_label_stop_or_are_left_out(tmp_path, caplog):
    (tmp_path / "a.jpg").touch()
    rows = ["path,label,split", "a.jpg,crow,train", "b.jpg,,train", "c.jpg,wren,train", "d.jpg, ,"]
    rows.append("e.jpg,wren,odd")
    (tmp_path / "set.csv").write_text("\n".join([*rows, ""]))
    with pytest.raises(DataError, match="row 2: 'label' is empty"):
        read_image_set(DataConfig("table", tmp_path / "set.csv"))
    skipping = DataConfig("table", tmp_path / "set.csv", on_unlabelled="skip")
    with pytest.raises(DataError, match="row 5: 'split' is 'odd'"):
        read_image_set(skipping)
    (tmp_path / "set.csv").write_text("\n".join([*rows[:-1], ""]))
    assert [record.path.name for record in read_image_set(skipping).records] == ["a.jpg", "c.jpg"]
    assert "2 of 4 rows have no label and are left out" in caplog.text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no images"),
        (["a.jpg,wren,train"], "one class only, 'wren'"),
        (["a.jpg,wren,train", "b.jpg,crow,test"], "1 of 2 classes have no training images: 'crow'"),
    ],
)
def test_classes_are_checked_after_reading(tmp_path, rows, message):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "set.csv").write_text("\n".join(["path,label,split", *rows, ""]))
    with pytest.raises(DataError, match=message):
        build_image_set(DataConfig("table", tmp_path / "set.csv"))

"""Groups from a table's column, folders, and days, up to the splits that keep them whole."""

import pytest
from PIL import ExifTags, Image

from ramstrans.data.build import build_image_set, read_image_set
from ramstrans.data.config import DataConfig
from ramstrans.data.splits import divided_groups
from ramstrans.errors import ConfigError, DataError


def save(path, day=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if day is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"2026:05:{day:02} 10:00:00"
    Image.new("RGB", (31, 17)).save(path, exif=exif)


@pytest.fixture
def folder(tmp_path):
    """Two classes of five birds with three photographs each, every bird on its day, and one file beside."""
    for name in ("crow", "wren"):
        for bird in range(5):
            for index in range(3):
                save(tmp_path / name / f"bird_{bird}" / "left" / f"{index}.jpg", day=bird + 1)
    save(tmp_path / "crow" / "alone.jpg")
    return tmp_path


def groups(images):
    return {record.group for record in images.records}


def test_folders_below_the_class(folder, caplog):
    images = build_image_set(DataConfig("folder", folder, group_level=1))
    assert groups(images) == {f"{name}/bird_{bird}" for name in ("crow", "wren") for bird in range(5)} | {""}
    assert not divided_groups(images)
    assert [images.counts(split)["wren"] for split in ("train", "val", "test")] == [9, 3, 3]
    assert "data.group_level 1: 1 of 31 images lie in no folder at that level" in caplog.text


def test_a_deeper_level(folder):
    images = read_image_set(DataConfig("folder", folder, group_level=2))
    assert "wren/bird_3/left" in groups(images)
    with pytest.raises(DataError, match=r"data\.group_level 3: all 31 images lie in no folder"):
        read_image_set(DataConfig("folder", folder, group_level=3))


def test_the_folder_of_the_split_is_not_part_of_a_group(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("split")
    for split in ("train", "test"):
        for name in ("crow", "wren"):
            save(root / split / name / "bird_7" / "1.jpg")
    config = DataConfig("folder", root, group_level=1, val_fraction=0)
    assert groups(read_image_set(config)) == {"crow/bird_7", "wren/bird_7"}
    with pytest.raises(DataError, match=r"2 groups are in more .* 'crow/bird_7' in train and test"):
        build_image_set(config)


def test_days(folder, caplog):
    images = build_image_set(DataConfig("folder", folder, group_day=True, test_fraction=0.4))
    assert groups(images) == {f"2026-05-0{day}" for day in range(1, 6)} | {""}
    assert not divided_groups(images)
    assert images.counts("test")["wren"] == 6  # two of five days
    assert "data.group_day: 1 of 31 images have no EXIF time" in caplog.text


def test_no_days_at_all(colors):
    with pytest.raises(DataError, match=r"data\.group_day: all 18 images have no EXIF time"):
        read_image_set(DataConfig("folder", colors, group_day=True))


def table(folder, column="bird"):
    rows = [
        f"{path.relative_to(folder)},{path.relative_to(folder).parts[0]},"
        f"{path.parts[-3] if path.name != 'alone.jpg' else ''}"
        for path in sorted(folder.glob("**/*.jpg"))
    ]
    (folder / "set.csv").write_text("\n".join([f"path,label,{column}", *rows]) + "\n")
    return folder / "set.csv"


def test_a_column_with_groups_of_several_classes(folder):
    images = build_image_set(DataConfig("table", table(folder), group_column="bird", test_fraction=0.4))
    assert groups(images) == {f"bird_{bird}" for bird in range(5)} | {""}
    assert not divided_groups(images)
    assert images.counts("test")["wren"] == 6
    assert not groups(build_image_set(DataConfig("table", folder / "set.csv"))) - {""}


def test_a_column_that_is_not_there(folder):
    with pytest.raises(DataError, match="has no column 'animal'; it has 'path', 'label', 'bird'"):
        build_image_set(DataConfig("table", table(folder), group_column="animal"))


def test_groups_and_folds_go_together(folder):
    config = DataConfig("folder", folder, group_level=1, folds=5, fold=2, val_fraction=0.2)
    images = build_image_set(config)
    assert not divided_groups(images)
    assert images.counts("test")["wren"] == 3


def test_options_that_do_not_go_together():
    with pytest.raises(ConfigError, match=r"data\.group_level and data\.group_day are both given"):
        DataConfig("folder", group_level=1, group_day=True)
    with pytest.raises(ConfigError, match=r"data\.fold is 4; give 1 to 3"):
        DataConfig("folder", folds=3, fold=4)
    with pytest.raises(ConfigError, match=r"data\.folds is 1; give 2 or more"):
        DataConfig("folder", folds=1)
    with pytest.raises(ConfigError, match=r"data\.group_level is of data\.name folder, and this is 'table'"):
        DataConfig("table", group_level=1)
    with pytest.raises(ConfigError, match=r"data\.group_column is of data\.name table, and this is 'folder'"):
        DataConfig("folder", group_column="site")
    with pytest.warns(UserWarning, match=r"data\.fold is ignored without data\.folds"):
        DataConfig("folder", fold=1)

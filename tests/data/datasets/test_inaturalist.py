import json

import pytest

from ramstrans.data.datasets.inaturalist import is_inaturalist, read_inaturalist
from ramstrans.data.records import Record
from ramstrans.errors import DataError
from tests.data.fakes import make_inaturalist2017, make_inaturalist2018, make_inaturalist2021
from tests.data.fakes.photographs import write_photograph

NAMES = ("Corvus corax", "Agathis montana (11)", "Agathis montana (13)")
GROUPS = (
    ("Corvus", "Corvidae", "Passeriformes", "Aves", "Chordata", "Animalia"),
    ("Agathis", "Araucariaceae", "Pinales", "Pinopsida", "Tracheophyta", "Plantae"),
    ("Agathis", "Braconidae", "Hymenoptera", "Insecta", "Arthropoda", "Animalia"),
)


def change(file, edit):
    """Apply a function to what a JSON file holds."""
    content = json.loads(file.read_text(encoding="utf-8"))
    edit(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def test_the_lists_of_2018(tmp_path):
    images = read_inaturalist(make_inaturalist2018(tmp_path))
    assert (images.class_names, images.hierarchy) == (NAMES, GROUPS)
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [15, 0, 6]
    assert images.records[1] == Record(tmp_path / "train_val2018/Pinopsida/11/000001.jpg", 1, "train")
    assert images.records[15] == Record(tmp_path / "train_val2018/Aves/7/00000f.jpg", 0, "test")


def test_the_lists_of_2018_without_names(tmp_path):
    (make_inaturalist2018(tmp_path) / "categories.json").unlink()
    assert read_inaturalist(tmp_path).class_names == ("7", "11", "13")


def test_the_lists_of_2017_with_boxes(tmp_path):
    images = read_inaturalist(make_inaturalist2017(tmp_path))
    assert (images.class_names, images.hierarchy) == (NAMES, (("Aves",), ("Pinopsida",), ("Insecta",)))
    boxes = {
        split: [record.box for record in images.of_split(split) if record.box] for split in ("train", "test")
    }
    assert boxes == {split: [(1, 2, 6, 9), (1, 1, 14, 9)] for split in ("train", "test")}
    assert images.records[0].path == tmp_path / "train_val_images/Aves/7/000000.jpg"
    for name in ("train", "val"):
        (tmp_path / f"{name}_2017_bboxes.json").unlink()
    assert {record.box for record in read_inaturalist(tmp_path).records} == {None}


def test_hybrids_of_2017_have_a_cross_in_name_and_folder(tmp_path):
    name = "Anas superciliosa \N{MULTIPLICATION SIGN} platyrhynchos"
    place = f"train_val_images/Aves/{name}/0a.jpg"

    def cross(content):
        content["categories"][0]["name"] = name
        content["images"][0]["file_name"] = place

    change(make_inaturalist2017(tmp_path) / "train_val2017/train2017.json", cross)
    write_photograph(tmp_path / place)
    images = read_inaturalist(tmp_path)
    assert images.class_names[0] == name
    assert images.records[0].path == tmp_path / place


def test_boxes_without_area_are_left_out(tmp_path):
    def flatten(content):
        content["annotations"][0]["bbox"][3] = 0

    change(make_inaturalist2017(tmp_path) / "train_2017_bboxes.json", flatten)
    assert [record.box for record in read_inaturalist(tmp_path).records[:2]] == [None, (1, 1, 14, 9)]


@pytest.mark.parametrize("train", ["train", "train_mini"])
def test_the_folders_of_2021(tmp_path, train):
    images = read_inaturalist(make_inaturalist2021(tmp_path, train))
    assert images.class_names == ("Corvus corax", "Agathis montana (00001)", "Agathis montana (00002)")
    assert images.hierarchy == GROUPS
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [15, 0, 6]
    folder = "00001_Plantae_Tracheophyta_Pinopsida_Pinales_Araucariaceae_Agathis_montana"
    assert images.records[6] == Record(tmp_path / train / folder / "00001eef-b0a5-4bbb.jpg", 1, "train")


def test_of_two_training_folders_one_is_to_be_chosen(tmp_path):
    make_inaturalist2021(make_inaturalist2021(tmp_path, "train"), "train_mini")
    with pytest.raises(DataError, match=r"both train/ and train_mini/; choose by --data.train_folder"):
        read_inaturalist(tmp_path)
    for name in ("train", "train_mini"):
        assert f"/{name}/" in str(read_inaturalist(tmp_path, name).records[0].path)


def test_it_is_known_by_its_lists_or_its_folders(tmp_path, colors):
    for make in (make_inaturalist2017, make_inaturalist2018, make_inaturalist2021):
        root = tmp_path / make.__name__
        root.mkdir()
        assert not is_inaturalist(root)
        assert is_inaturalist(make(root))
    assert not is_inaturalist(colors)
    assert not is_inaturalist(tmp_path / "nowhere")


def drop(key, place=None):
    return lambda content: content.pop(key) if place is None else content[key].pop(place)


def put(key, place, field, value):
    return lambda content: content[key][place].update({field: value})


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("train2018.json", drop("images"), "train2018.json holds no list of 'images'"),
        ("train2018.json", drop("categories"), "train2018.json holds no list of 'categories'"),
        ("val2018.json", drop("annotations"), "val2018.json holds no list of 'annotations'"),
        ("val2018.json", drop("annotations", 2), "val2018.json: image 17 has no annotation; add it"),
        (
            "train2018.json",
            put("annotations", 0, "category_id", 5),
            "category 5 of image 0 is not among the 3",
        ),
        ("train2018.json", put("annotations", 0, "category_id", "x"), "invalid literal for int"),
        (
            "train2018.json",
            put("images", 0, "id", None),
            "train2018.json cannot be read in the layout of iNaturalist",
        ),
        ("train2018.json", put("images", 3, "file_name", "a/b.jpg"), "a/b.jpg does not exist"),
        ("train2018.json", lambda content: content["images"].append(7), "holds no list of 'images'"),
        ("train2018.json", lambda content: content["images"][0].pop("id"), "an entry has no 'id'"),
        (
            "categories.json",
            lambda content: content.append(content[0]),
            "categories.json: a category is listed",
        ),
        ("categories.json", lambda content: content[0].pop("name"), "categories.json: a category has no"),
        ("categories.json", lambda content: content.pop(), "category 7 of image 0 is not among the 2"),
    ],
)
def test_what_is_wrong_in_the_lists_is_said(tmp_path, file, edit, message):
    change(make_inaturalist2018(tmp_path) / file, edit)
    with pytest.raises(DataError, match=message) as caught:
        read_inaturalist(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_lists_that_do_not_go_together(tmp_path):
    make_inaturalist2018(tmp_path)
    (tmp_path / "val2018.json").rename(tmp_path / "aside")
    with pytest.raises(DataError, match=r"val2018.json is missing; the layout of iNaturalist needs it"):
        read_inaturalist(tmp_path)
    (tmp_path / "train2017.json").touch()
    with pytest.raises(DataError, match="holds the lists of 2017, 2018; keep one year a folder"):
        read_inaturalist(tmp_path)


def test_a_box_of_an_unknown_image(tmp_path):
    change(make_inaturalist2017(tmp_path) / "val_2017_bboxes.json", put("annotations", 0, "image_id", 99))
    with pytest.raises(DataError, match=r"val_2017_bboxes.json: image 99 of the annotations is not among"):
        read_inaturalist(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ((), "holds neither train<year>.json nor train/ or train_mini/"),
        (("train/00000_A_B_C_D_E_F_g",), "val cannot be read: No such file or directory"),
        (("train/00000_A_B_C_D_E_F",), "train/00000_A_B_C_D_E_F is not named <number>_<kingdom>_"),
        (
            ("train/00000_A_B_C_D_E_F_g", "val/00001_A_B_C_D_E_F_h"),
            r"val/00001_A_B_C_D_E_F_h has no counterpart in .*train; unpack it there \(1 such\)",
        ),
        (
            ("train/00000_A_B_C_D_E_F_g", "train/00001_A_B_C_D_E_F_h", "val/00001_A_B_C_D_E_F_h"),
            "the data set holds no images",
        ),
    ],
)
def test_what_is_wrong_in_the_folders_is_said(tmp_path, make, message):
    for name in make:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(DataError, match=message):
        read_inaturalist(tmp_path)


def test_a_training_folder_that_is_not_there(tmp_path):
    make_inaturalist2021(tmp_path, "train_mini")
    with pytest.raises(DataError, match=r"train cannot be read: No such file.*unpack iNaturalist 2021 there"):
        read_inaturalist(tmp_path, "train")

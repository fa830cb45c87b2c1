import json

import pytest

from ramstrans.data.datasets.inaturalist import is_inaturalist, read_inaturalist
from ramstrans.data.records import Record
from ramstrans.errors import DataError
from tests.data.datasets.damage import check_damage
from tests.data.fakes import make_inaturalist2017, make_inaturalist2018, make_inaturalist2021
from tests.data.fakes.blocks import write_image

NAMES = ("Corvus corax", "Agathis montana (11)", "Agathis montana (13)")
RANKS = ("species", "genus", "family", "order", "class", "phylum", "kingdom")
GROUPS = (
    ("Corvus", "Corvidae", "Passeriformes", "Aves", "Chordata", "Animalia"),
    ("Agathis", "Araucariaceae", "Pinales", "Pinopsida", "Tracheophyta", "Plantae"),
    ("Agathis", "Braconidae", "Hymenoptera", "Insecta", "Arthropoda", "Animalia"),
)


def change(file, edit):
    """Apply a function to the content of a JSON file."""
    content = json.loads(file.read_text(encoding="utf-8"))
    edit(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def test_the_lists_of_2018(tmp_path):
    images = read_inaturalist(make_inaturalist2018(tmp_path))
    assert (images.class_names, images.hierarchy) == (NAMES, GROUPS)
    assert images.ranks == RANKS
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [15, 0, 6]
    assert images.records[1] == Record(tmp_path / "train_val2018/Pinopsida/11/000001.jpg", 1, "train")
    assert images.records[15] == Record(tmp_path / "train_val2018/Aves/7/00000f.jpg", 0, "test")


def test_the_lists_of_2018_without_names(tmp_path):
    (make_inaturalist2018(tmp_path) / "categories.json").unlink()
    assert read_inaturalist(tmp_path).class_names == ("7", "11", "13")


def test_the_lists_of_2017_with_boxes(tmp_path):
    images = read_inaturalist(make_inaturalist2017(tmp_path))
    assert (images.class_names, images.hierarchy) == (NAMES, (("Aves",), ("Pinopsida",), ("Insecta",)))
    assert images.ranks == ("species", "supercategory")
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
    path = f"train_val_images/Aves/{name}/0a.jpg"

    def cross(content):
        content["categories"][0]["name"] = name
        content["images"][0]["file_name"] = path

    change(make_inaturalist2017(tmp_path) / "train_val2017/train2017.json", cross)
    write_image(tmp_path / path)
    images = read_inaturalist(tmp_path)
    assert images.class_names[0] == name
    assert images.records[0].path == tmp_path / path


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
    assert images.ranks == RANKS
    assert [len(images.of_split(split)) for split in ("train", "val", "test")] == [15, 0, 6]
    folder = "00001_Plantae_Tracheophyta_Pinopsida_Pinales_Araucariaceae_Agathis_montana"
    assert images.records[6] == Record(tmp_path / train / folder / "00001eef-b0a5-4bbb.jpg", 1, "train")


def test_with_two_training_folders_one_must_be_chosen(tmp_path):
    make_inaturalist2021(make_inaturalist2021(tmp_path, "train"), "train_mini")
    with pytest.raises(DataError, match=r"both train/ and train_mini/; choose by --data.train_folder"):
        read_inaturalist(tmp_path)
    for name in ("train", "train_mini"):
        assert f"/{name}/" in str(read_inaturalist(tmp_path, name).records[0].path)


def test_it_is_detected_by_its_lists_or_folders(tmp_path, colors):
    for make in (make_inaturalist2017, make_inaturalist2018, make_inaturalist2021):
        root = tmp_path / make.__name__
        root.mkdir()
        assert not is_inaturalist(root)
        assert is_inaturalist(make(root))
    assert not is_inaturalist(colors)
    assert not is_inaturalist(tmp_path / "nowhere")


def json_edit(edit):
    """Damage: a function applied to the content."""
    return lambda file: change(file, edit)


def drop(key, index=None):
    return json_edit(lambda content: content.pop(key) if index is None else content[key].pop(index))


def put(key, index, field, value):
    return json_edit(lambda content: content[key][index].update({field: value}))


TRAIN, VAL, CATEGORIES = "train2018.json", "val2018.json", "categories.json"
DAMAGE = [
    (TRAIN, drop("images"), f"{TRAIN} has no list of 'images'"),
    (TRAIN, drop("categories"), f"{TRAIN} has no list of 'categories'"),
    (TRAIN, put("annotations", 0, "category_id", 5), "category 5 of image 0 is not among the 3"),
    (TRAIN, put("annotations", 0, "category_id", "x"), "invalid literal for int"),
    (TRAIN, put("images", 0, "id", None), f"{TRAIN} is not as published"),
    (TRAIN, put("images", 3, "file_name", "a/b.jpg"), "a/b.jpg does not exist"),
    (TRAIN, json_edit(lambda content: content["images"].append(7)), "has no list of 'images'"),
    (TRAIN, json_edit(lambda content: content["images"][0].pop("id")), "an entry has no 'id'"),
    (VAL, drop("annotations"), f"{VAL} has no list of 'annotations'"),
    (VAL, drop("annotations", 2), f"{VAL}: image 17 has no annotation; add it"),
    (VAL, None, f"{VAL} is missing; unpack the whole set"),
    (
        CATEGORIES,
        json_edit(lambda content: content.append(content[0])),
        f"{CATEGORIES}: each category needs",
    ),
    (
        CATEGORIES,
        json_edit(lambda content: content[0].pop("name")),
        f"{CATEGORIES}: each category needs",
    ),
    (CATEGORIES, json_edit(lambda content: content.pop()), "category 7 of image 0 is not among the 2"),
    ("train2017.json", "", "has the lists of 2017, 2018; keep one year per folder"),
]


@pytest.mark.parametrize(("file", "change", "message"), DAMAGE)
def test_damage_to_the_lists_is_reported_with_the_file(tmp_path, file, change, message):
    check_damage(read_inaturalist, make_inaturalist2018(tmp_path), file, change, message)


def test_a_box_of_an_unknown_image(tmp_path):
    message = "val_2017_bboxes.json: image 99 of the annotations is not among"
    moved = put("annotations", 0, "image_id", 99)
    check_damage(read_inaturalist, make_inaturalist2017(tmp_path), "val_2017_bboxes.json", moved, message)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ((), "has neither train<year>.json nor train/ or train_mini/"),
        (("train/00000_A_B_C_D_E_F_g",), "val does not exist; give the folder"),
        (
            ("train/00000_A_B_C_D_E_F", "val/00000_A_B_C_D_E_F"),
            "the class folder 00000_A_B_C_D_E_F is not named <number>_<kingdom>_",
        ),
    ],
)
def test_damage_to_the_folders_is_reported(tmp_path, make, message):
    for name in make:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.jpg").touch()
    with pytest.raises(DataError, match=message):
        read_inaturalist(tmp_path)


def test_a_training_folder_that_is_not_there(tmp_path):
    make_inaturalist2021(tmp_path, "train_mini")
    with pytest.raises(DataError, match=r"train does not exist; give the folder"):
        read_inaturalist(tmp_path, "train")

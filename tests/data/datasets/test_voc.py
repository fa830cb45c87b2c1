import pytest

from ramstrans.data.datasets.voc import read_voc_boxes
from tests.data.datasets.damage import check_damage, replaced
from tests.data.fakes.blocks import voc_xml


def test_all_boxes_in_order(tmp_path):
    file = tmp_path / "dog"
    file.write_text(voc_xml("dog", [(0, 2, 11, 13), (1, 2, 7.5, 11)]))
    assert read_voc_boxes(file) == [(0, 2, 11, 13), (1, 2, 7.5, 11)]
    file.write_text(voc_xml("dog", []))
    assert read_voc_boxes(file) == []


DAMAGE = [
    (replaced("</annotation>", ""), "dog cannot be read: "),
    (replaced("<xmin>2</xmin>", ""), "dog cannot be read: a bndbox has no xmin"),
    (
        replaced("<xmin>2</xmin>", "<xmin>two</xmin>"),
        "dog cannot be read: could not convert string to float: 'two'",
    ),
    (
        replaced("<xmin>2</xmin>", "<xmin>nan</xmin>"),
        "dog cannot be read: 'nan' is not a finite number",
    ),
    (
        replaced("<xmin>2</xmin>", "<xmin>11</xmin>"),
        "dog cannot be read: the box is 11, 3, 11, 7; xmin must be below xmax",
    ),
    (
        replaced("<ymax>7</ymax>", "<ymax>1</ymax>"),
        "dog cannot be read: the box is 2, 3, 11, 1; xmin must be below xmax",
    ),
    (None, "dog is missing; unpack the whole set"),
]


@pytest.mark.parametrize(("change", "message"), DAMAGE)
def test_damage_is_reported_with_the_file(tmp_path, change, message):
    (tmp_path / "dog").write_text(voc_xml("dog", [(2, 3, 11, 7)]))
    check_damage(lambda root: read_voc_boxes(root / "dog"), tmp_path, "dog", change, message)

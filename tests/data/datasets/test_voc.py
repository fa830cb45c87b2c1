import pytest

from ramstrans.data.datasets.voc import read_voc_boxes
from ramstrans.errors import DataError
from tests.data.fakes.photographs import voc_xml


def test_all_boxes_in_order(tmp_path):
    file = tmp_path / "dog"
    file.write_text(voc_xml("dog", [(0, 2, 11, 13), (1, 2, 7.5, 11)]))
    assert read_voc_boxes(file, "Dogs") == [(0, 2, 11, 13), (1, 2, 7.5, 11)]
    file.write_text(voc_xml("dog", []))
    assert read_voc_boxes(file, "Dogs") == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</annotation>", "", "dog cannot be read as XML: "),
        ("<xmin>2</xmin>", "", "dog: a bndbox has no xmin"),
        ("<xmin>2</xmin>", "<xmin>two</xmin>", "dog: could not convert string to float: 'two'"),
        ("<xmin>2</xmin>", "<xmin>nan</xmin>", "dog: 'nan' is not a finite number"),
        ("<xmin>2</xmin>", "<xmin>11</xmin>", "dog: the box is 11, 3, 11, 7; xmin must be below xmax"),
        ("<ymax>7</ymax>", "<ymax>1</ymax>", "dog: the box is 2, 3, 11, 1; xmin must be below xmax"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, old, new, message):
    xml = voc_xml("dog", [(2, 3, 11, 7)])
    assert old in xml
    (tmp_path / "dog").write_text(xml.replace(old, new))
    with pytest.raises(DataError, match=message):
        read_voc_boxes(tmp_path / "dog", "Dogs")


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="dog is missing; the layout of Dogs needs it"):
        read_voc_boxes(tmp_path / "dog", "Dogs")

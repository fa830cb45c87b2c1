import pytest

from ramstrans.data.reading.listing import LINKED_FOLDER, LeftOut, images_below, list_folder
from ramstrans.errors import DataError


def test_many_kinds_are_summed_up():
    left_out = LeftOut()
    for number in range(10):
        for _ in range(number + 1):
            left_out.add_file(f"a.x{number}")
    assert str(left_out).startswith("10 .x9, 9 .x8, ")
    assert str(left_out).endswith(", 3 .x2, 3 of other kinds")


def test_plurals():
    left_out = LeftOut()
    left_out[LINKED_FOLDER] += 1
    assert str(left_out) == "1 link to a folder"
    left_out[LINKED_FOLDER] += 1
    assert str(left_out) == "2 links to folders"


def test_nothing_left_out_is_nothing_logged(caplog):
    LeftOut().log("birds")
    assert caplog.messages == []


def test_a_folder_that_cannot_be_listed(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist; give the folder"):
        list_folder(tmp_path / "nowhere")
    seen = []
    assert list_folder(tmp_path / "nowhere", lambda folder, error: seen.append(folder)) == []
    assert seen == [tmp_path / "nowhere"]
    (tmp_path / "a.jpg").touch()
    assert list(images_below(tmp_path, LeftOut())) == [tmp_path / "a.jpg"]


def test_links_that_lead_in_circles_are_files(tmp_path):
    for name in ("a.jpg", "loop"):
        (tmp_path / name).symlink_to(name)
    (tmp_path / "b.jpg").touch()
    left_out = LeftOut()
    assert list(images_below(tmp_path, left_out)) == [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    assert str(left_out) == "1 without a suffix"

"""Tables of ranks, and what may be wrong with them."""

import pytest

from ramstrans.calibration.rank_table import read_rank_table
from ramstrans.errors import DataError

NAMES = ("crow", "jay", "wren")
TABLE = "class,genus,family\nwren,Troglodytes,Troglodytidae\njay,Garrulus,Corvidae\ncrow,Corvus,Corvidae\n"


def read(tmp_path, text=TABLE, encoding="utf-8"):
    path = tmp_path / "ranks.csv"
    path.write_bytes(text.encode(encoding))
    return read_rank_table(path, NAMES)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table(tmp_path, separator):
    found = read(tmp_path, TABLE.replace(",", separator) + "\n", "utf-8-sig")
    assert found.ranks == ("class", "genus", "family")
    assert found.groups == (("Corvus", "Garrulus", "Troglodytes"), ("Corvidae", "Troglodytidae"))
    assert found.members == ((0, 1, 2), (0, 0, 1))
    assert found.source == "ranks.csv"


def test_an_empty_cell_is_a_rank_that_a_class_lacks(tmp_path):
    found = read(tmp_path, TABLE.replace("Garrulus", ""))
    assert found.groups[0] == ("Corvus", "Troglodytes")
    assert found.members[0] == (0, -1, 1)


def test_classes_that_the_model_lacks_are_left_out(tmp_path, caplog):
    found = read(tmp_path, TABLE + "owl,Strix,Strigidae\n")
    assert found.groups[1] == ("Corvidae", "Troglodytidae")
    assert "left out, as the model does not have this class: 'owl'" in caplog.text


def test_one_group_for_all(tmp_path, caplog):
    caplog.set_level("INFO")
    lines = TABLE.splitlines()
    found = read(tmp_path, "\n".join([f"{lines[0]},order", *(f"{line},Passeriformes" for line in lines[1:])]))
    assert found.ranks == ("class", "genus", "family")
    assert "all classes are in one group of order, left out" in caplog.text


def test_a_class_may_be_called_like_its_group(tmp_path):
    assert read(tmp_path, "class,genus\nwren,wren\njay,Garrulus\ncrow,Garrulus\n").groups == (
        ("Garrulus", "wren"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; give a line per class"),
        ("wren,Troglodytes\njay,Garrulus\n", "begins with the class 'wren'; the header names the ranks"),
        (
            "class\nwren\n",
            "has one column only, 'class'; the header names the ranks, e.g. class,genus",
        ),
        ("class,genus,\nwren,a,b\n", "has a column without a name"),
        ("class,genus,genus\nwren,a,b\n", r"has two columns of one name \(class, genus, genus\)"),
        (
            TABLE.replace("jay,Garrulus,", "jay,"),
            "line 3: 2 cells, and the header has 3: class, genus",
        ),
        (TABLE.replace("jay,", ","), "line 3: 'class' is empty; name the class"),
        (TABLE + "jay,Garrulus,Corvidae\n", "line 5: 'jay' is there twice; remove one line"),
        (
            TABLE.replace("jay,Garrulus,Corvidae\n", ""),
            "has no line for 1 of the model's 3 classes: 'jay'; add them",
        ),
        (TABLE.replace("wren,T", "wrens,T"), r"1 of the model's 3 classes: 'wren' \(is it 'wrens'\?\); add"),
        (
            TABLE.replace("Garrulus,Corvidae", "Corvus,Laniidae"),
            "genus 'Corvus' is in family 'Corvidae' by 'crow' and in family 'Laniidae' by 'jay'; correct one",
        ),
        (
            TABLE.replace("Garrulus,Corvidae", "Corvus,"),
            "genus 'Corvus' is in family 'Corvidae' by 'crow' and in no family by 'jay'",
        ),
        (
            "class,genus,family\ncrow,A,B\njay,B,A\nwren,C,D\n",
            "the ranks form a circle, 'A' < 'B' < 'A'; correct one of these lines",
        ),
        ("class,genus\ncrow,jay\njay,crow\nwren,wren\n", "the ranks form a circle, 'crow' < 'jay' < 'crow'"),
        ("class,order\nwren,P\njay,P\ncrow,P\n", "order put all classes of the model into one group"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as raised:
        read(tmp_path, text)
    assert "\n" not in str(raised.value)


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(DataError, match="is not UTF-8 text; save it as CSV in UTF-8"):
        read(tmp_path, "class,genus\nspécht,x\n", "latin-1")
    with pytest.raises(DataError, match=r"none\.csv cannot be read \(No such file or directory\)"):
        read_rank_table(tmp_path / "none.csv", NAMES)

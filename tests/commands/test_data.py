"""`ramstrans data make`, and `ramstrans data check` of what it made."""

import functools

from ramstrans.cli import main


def test_data_make_then_check(tmp_path, monkeypatch, capsys):
    from ramstrans.data.toybirds import generator as toybirds

    few = functools.partial(
        toybirds.make_toybirds, num_classes=2, train_per_class=3, test_per_class=1, image_size=32
    )
    monkeypatch.setattr(toybirds, "make_toybirds", few)
    root = tmp_path / "birds"
    assert main(["data", "make", "toybirds", str(root)]) == 0
    assert capsys.readouterr().out == f"{root}\n"
    assert main(["data", "check", "--data.root", str(root), "--data.val_fraction", "0"]) == 0
    rows = capsys.readouterr().out.splitlines()
    cells = [row.replace("│", " ").split() for row in rows]
    assert ["train", "6", "2", "3", "3"] in cells
    assert ["test", "2", "2", "1", "1"] in cells


def test_data_check_names_an_unreadable_file(with_broken_file, capsys):
    root, broken = with_broken_file
    assert main(["data", "check", "--data.name", "folder", "--data.root", str(root)]) == 3
    assert f"unreadable: {broken}" in capsys.readouterr().out

"""`ramstrans explain`, from its arguments to its files."""

import json
import os
import re
import shutil

import pytest

from ramstrans.cli import main


@pytest.fixture
def photos(colors, tmp_path, monkeypatch):
    """Six photographs in three folders; two and two have the same name."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(colors / "test", "photos")
    return tmp_path / "photos"


def explain(trained, *arguments):
    return main(["explain", str(trained.folder), *map(str, arguments), "--device", "cpu"])


def test_one_image_gives_one_line_and_two_files(trained, photos, tmp_path, capsys):
    assert explain(trained, "photos/Azure_tit/0.png") == 0
    printed = capsys.readouterr()
    values = json.loads((tmp_path / "0-explained.json").read_text())
    answer = f"{values['labels'][0]} {values['probabilities'][0]:.1%}"
    assert printed.out == f"photos/Azure_tit/0.png: {answer}; 0-explained.png\n"
    assert (tmp_path / "0-explained.png").stat().st_size > 0
    assert "1 image explained" in printed.err


def test_several_images_and_folders(trained, photos, tmp_path, capsys):
    assert explain(trained, photos / "Azure_tit", "photos/*/0.png", "nix.jpg") == 3
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 5  # one of them was named twice
    assert lines[-1] == "nix.jpg: not read: no such file"
    for line in lines[:-1]:
        assert re.search(r"/\d\.png: .+ \d+\.\d%; explained/photos/\w+/\d-explained\.png$", line)
    assert len(list(tmp_path.glob("explained/photos/*/*.png"))) == 4
    assert len(list(tmp_path.glob("explained/photos/*/*.json"))) == 4
    assert printed.err.endswith("nix.jpg: no such file; 4 images were read all the same\n")


def test_images_of_one_name_get_figures_of_their_own(trained, photos, tmp_path):
    assert explain(trained, "photos/Azure_tit/0.png", "photos/Coral_ibis/0.png", "--output", "why") == 0
    found = sorted(str(path.relative_to(tmp_path / "why")) for path in tmp_path.glob("why/*/*.png"))
    assert found == ["Azure_tit/0-explained.png", "Coral_ibis/0-explained.png"]


def test_files_that_exist_are_replaced_only_on_request(trained, photos, tmp_path, fails, capsys):
    (tmp_path / "bird.json").write_text("of somebody else")
    arguments = ["explain", trained.folder, "photos/Azure_tit/0.png", "--output", "bird.png"]
    assert "bird.json exists" in fails(2, *arguments, "--device", "cpu")
    assert (tmp_path / "bird.json").read_text() == "of somebody else"
    assert explain(trained, *arguments[2:], "--overwrite", "true") == 0
    assert json.loads((tmp_path / "bird.json").read_text())["labels"]
    capsys.readouterr()
    line = fails(2, *arguments[:2], "photos", "--output", "why.png", "--device", "cpu")
    assert "why.png is one file for 6 images; give a folder" in line


def test_an_image_that_cannot_be_read(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.png").touch()
    assert explain(trained, "empty.png") == 3
    assert capsys.readouterr().out == "empty.png: not read: empty file\n"
    assert [path.name for path in tmp_path.iterdir()] == ["empty.png"]


def test_a_name_that_is_not_utf_8(trained, photos, tmp_path, capsys):
    os.rename("photos/Azure_tit/0.png", b"photos/b\xe9d.png")  # noqa: PTH104 - a name of bytes
    assert explain(trained, os.fsdecode(b"photos/b\xe9d.png"), "--output", "why.png") == 0
    assert json.loads((tmp_path / "why.json").read_text())["path"] == r"photos/b\udce9d.png"


def test_another_saliency_is_shown_and_regions_follow_it(trained, photos, tmp_path, fails, capsys):
    values = {}
    for name in ("rollout", "cosine"):
        arguments = ["photos/Azure_tit/0.png", "--output", f"{name}.png", "--saliency", name]
        assert explain(trained, *arguments) == 0
        values[name] = json.loads((tmp_path / f"{name}.json").read_text())["scales"]
    assert explain(trained, "photos/Azure_tit/0.png", "--output", "own.png") == 0
    assert json.loads((tmp_path / "own.json").read_text())["scales"] == values["rollout"]
    assert values["cosine"][0]["saliency"] != values["rollout"][0]["saliency"]
    assert values["cosine"][0]["crop_box"] == values["rollout"][0]["crop_box"]
    capsys.readouterr()
    said = fails(2, "explain", trained.folder, "photos/Azure_tit/0.png", "--saliency", "cam")
    assert "cannot have" in said
    assert "give auto or rollout or class_attention or cosine" in said

import tarfile
from pathlib import Path

import pytest

from ramstrans.inference.arguments import name_of, resolve_arguments


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.jpg", "deep/er/c.jpg", "[1].jpg", ".hidden.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with tarfile.open("birds.tar", "w") as tar:
        tar.add("a.jpg", "wren.jpg")
    return tmp_path


@pytest.mark.parametrize(
    ("argument", "names", "missing"),
    [
        ("b.jpg", ["b.jpg"], []),
        ("deep", ["deep"], []),
        ("-", ["-"], []),
        ("?.jpg", ["a.jpg", "b.jpg"], []),
        ("**/c.jpg", ["deep/er/c.jpg"], []),
        ("[1].jpg", ["[1].jpg"], []),  # a file of that name, not a pattern
        ("typo/*.jpg", ["typo/*.jpg"], ["typo/*.jpg"]),
        ("nix.jpg", ["nix.jpg"], ["nix.jpg"]),
        ("a.jpg/b.jpg", ["a.jpg/b.jpg"], ["a.jpg/b.jpg"]),
        ("https://birds.org/a.jpg", ["https://birds.org/a.jpg"], ["https://birds.org/a.jpg"]),
        ("birds.tar/wren.jpg", ["birds.tar/wren.jpg"], []),  # its row says whether it is in there
        ("owls.tar/wren.jpg", ["owls.tar/wren.jpg"], ["owls.tar/wren.jpg"]),
        ("x" * 5000, ["x" * 5000], []),  # its row says why it cannot be read
        ("a\0b", ["a\0b"], []),
    ],
)
def test_what_an_argument_names(folder, argument, names, missing):
    assert resolve_arguments([argument]) == (tuple(names), tuple(missing))


def test_arguments_keep_their_order(folder):
    assert resolve_arguments(["deep", "?.jpg", "nix.jpg", folder]).names == (
        *("deep", "a.jpg", "b.jpg", "nix.jpg", str(folder)),
    )


@pytest.mark.parametrize("name", ["plot1:/0.jpg", "https:/a.jpg", "C:/a.jpg"])
def test_a_folder_may_end_in_a_colon(name):
    assert name_of(Path(name)) == (f"https://{name[7:]}" if name.startswith("https") else name)

"""Every command line of README.md and docs/ is one that the parser takes."""

import re
import shlex
from pathlib import Path

import pytest

from ramstrans.cli import build_parser, split_quiet

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def command_lines():
    """Those in shell blocks; without comments and brackets, but quoted ones; variables of loops filled in."""
    for page in PAGES:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                for command in re.split(r"&&|[|>]|(?<!\S)#.*", line):
                    if re.match(r"\s*ramstrans\s", command):
                        filled = re.sub(r"\$seed|\bSEED\b", "0", command).replace("$experiment", "full")
                        bare = re.sub(r'("[^"]*")|[][]|[.]{3}', r"\1", filled)
                        yield f"{page.name}: {bare.strip()}"


def make_data(path):
    """What a command line names and the parser looks for: a table, or photographs in folders of classes."""
    if path.suffix:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("path,label\n")
    else:
        for name in ("robin", "wren"):
            (path / name).mkdir(parents=True, exist_ok=True)
            (path / name / "1.jpg").touch()


@pytest.mark.slow
@pytest.mark.parametrize("line", list(command_lines()))
def test_a_command_line_of_the_docs_is_taken(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line.partition(": ")[2])[1:]
    if "--resume" in words or words[-1].startswith("hf://"):
        pytest.skip("it reads options of a run, which is not here")
    for word in words[1:]:
        if not word.startswith(("-", "hf://")) and "*" not in word:
            make_data(tmp_path / word)
    taken = build_parser().parse_args(split_quiet(words)[1])
    assert taken.subcommand == next(word for word in words if not word.startswith("-"))


def test_there_are_command_lines():
    assert len(list(command_lines())) > 50

import pytest

from ramstrans.commands import data_download
from ramstrans.commands.options import Parser
from ramstrans.data.download import published
from ramstrans.data.download.registry import REGISTRY
from ramstrans.errors import DataError, OutputError, UsageError
from tests.data.web import CONTENTS, UNPACKED, files_in, publication_of, serving


def run(*arguments):
    parser = Parser(allow_abbrev=False)
    data_download.add_options(parser)
    given = list(map(str, arguments))
    return data_download.run(parser.parse_args(given), given)


@pytest.fixture
def asked(monkeypatch):
    """What `download_data_set` is called with; nothing is downloaded."""
    asked = []

    def noted(name, root, *, keep_archives, **_):
        asked.append((name, root.name, keep_archives))

    monkeypatch.setattr(published, "download_data_set", noted)
    return asked


@pytest.mark.parametrize("name", REGISTRY)
def test_every_name_is_taken(asked, tmp_path, capsys, name):
    assert run(name, tmp_path / "new") == 0
    assert asked == [(name, "new", False)]
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'new'}\n"
    assert f"read it by --data.name {REGISTRY[name].layout} --data.root {tmp_path / 'new'}" in printed.err


def test_the_archives_are_kept_on_request(asked, tmp_path):
    run("--keep_archives", "true", "cub", tmp_path / "new")
    assert asked == [("cub", "new", True)]


@pytest.mark.parametrize(
    "arguments", [[], ["cub"], ["cars", "new"], ["cub", "new", "more"], ["cub", "new", "--keep"]]
)
def test_arguments_that_are_none(asked, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value).strip()
    assert asked == []


def test_an_unknown_name_is_answered_with_those_there_are(asked, tmp_path):
    with pytest.raises(UsageError, match=r"cub.*nabirds.*food101"):
        run("birds", tmp_path)


def test_a_set_is_downloaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as web:
        web.files.update(CONTENTS)
        monkeypatch.setitem(REGISTRY, "cub", publication_of(web))
        assert run("cub", tmp_path / "birds") == 0
    assert files_in(tmp_path / "birds") == UNPACKED
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'birds'}\n"
    assert "terms: none" in printed.err
    with pytest.raises(OutputError, match="is not empty"):
        run("cub", tmp_path / "birds")


@pytest.mark.parametrize("name", ["stanford_cars", "nabirds"])
def test_directions(tmp_path, name):
    with pytest.raises(DataError, match="cannot be downloaded directly"):
        run(name, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []

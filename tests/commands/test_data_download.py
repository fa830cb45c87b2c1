import pytest

from ramstrans.commands import data_download
from ramstrans.commands.options import Parser
from ramstrans.data.download import published
from ramstrans.data.download.registry import REGISTRY
from ramstrans.errors import OutputError, UsageError
from tests.data.web import CONTENTS, UNPACKED, files_in, serving, source_of


def run(*arguments):
    parser = Parser(allow_abbrev=False)
    data_download.add_options(parser)
    given = list(map(str, arguments))
    return data_download.run(parser.parse_args(given), given)


@pytest.fixture
def calls(monkeypatch):
    """Arguments of each call of `download_data_set`; nothing is downloaded."""
    calls = []

    def recorded(name, root, *, keep_archives, **_):
        calls.append((name, root.name, keep_archives))

    monkeypatch.setattr(published, "download_data_set", recorded)
    return calls


def test_every_name_and_option_is_passed_on(calls, tmp_path):
    for name in REGISTRY:
        assert run(name, tmp_path / "new") == 0
    assert calls == [(name, "new", False) for name in REGISTRY]
    run("--keep_archives", "true", "cub", tmp_path / "new")
    assert calls[-1] == ("cub", "new", True)


@pytest.mark.parametrize(
    "arguments", [[], ["cub"], ["cars", "new"], ["cub", "new", "more"], ["cub", "new", "--keep"]]
)
def test_wrong_arguments(calls, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value).strip()
    assert calls == []


def test_an_unknown_name_is_answered_with_all_names(calls, tmp_path):
    with pytest.raises(UsageError, match=r"cub.*nabirds.*food101"):
        run("birds", tmp_path)


def test_a_data_set_is_downloaded(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setenv("no_proxy", "*")
    caplog.set_level("INFO", "ramstrans")
    with serving() as web:
        web.files.update(CONTENTS)
        monkeypatch.setitem(REGISTRY, "cub", source_of(web))
        assert run("cub", tmp_path / "birds") == 0
    assert files_in(tmp_path / "birds") == UNPACKED
    assert capsys.readouterr().out == f"{tmp_path / 'birds'}\n"
    assert f"read it by --data.name cub --data.root {tmp_path / 'birds'}" in caplog.messages
    with pytest.raises(OutputError, match="is not empty"):
        run("cub", tmp_path / "birds")

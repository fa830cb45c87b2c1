"""The files of an exported page, and what cannot be one."""

import json

import pytest

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import UsageError
from ramstrans.export import web
from ramstrans.export.graph import Graph
from ramstrans.export.web import check_page, write_page
from ramstrans.saved.metadata import ModelMetadata
from tests.models.builders import tiny_config, tiny_model


def test_the_page_answers_from_the_browser(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.onnx").write_bytes(b"12345")
    programs = [tmp_path / name for name in ("a.mjs", "b.wasm")]
    for program in programs:
        program.write_bytes(b"123")
    write_page(tmp_path / "out", programs)
    text = (tmp_path / "out" / "index.html").read_text()
    assert 'data-answers="browser"' in text
    assert 'data-answers="server"' not in text
    values = json.loads((tmp_path / "out" / "page.json").read_text())
    assert values["bytes"] == {"model.onnx": 5, "runtime/b.wasm": 3}
    assert {path.name for path in (tmp_path / "out" / "runtime").iterdir()} == {
        "a.js",
        "b.wasm",
        "LICENSE.txt",
    }
    assert not (tmp_path / "out" / "server.js").exists()


def test_a_model_too_large_for_a_browser(tmp_path, monkeypatch):
    graph = Graph(tiny_model(), ModelMetadata(tiny_config(), tuple("abcde"), Preprocessing(96, (48, 80))))
    monkeypatch.setattr(web, "MAX_BYTES", 10_000)
    with pytest.raises(UsageError, match=r"a browser can hold 0 MB; export another format and serve that"):
        check_page(graph, tmp_path)


def test_a_runtime_is_only_for_a_page(fails):
    line = fails(2, "export", "nowhere", "out", "--runtime", "dist")
    assert line == "ramstrans: --runtime has no effect without --format web; leave it out"

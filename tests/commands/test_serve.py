"""`ramstrans serve`: what is wrong is said before the model is loaded."""

import sys

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed")

from ramstrans.calibration.fitted import Calibration, FusedRule
from ramstrans.commands import serve as module


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch):
    def loaded(*_):
        raise AssertionError("loaded")

    monkeypatch.setattr(module, "open_engine", loaded)


def test_a_port_that_is_taken(trained, fails):
    from ramstrans.serve.server import bind

    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        assert f"--port {port} cannot be listened on" in fails(2, "serve", trained.folder, "--port", port)


def test_a_port_that_there_is_not(trained, fails):
    assert "--port is 70000; give 0 to 65535" in fails(2, "serve", trained.folder, "--port", 70000)


def test_what_is_no_model(tmp_path, fails):
    assert "is not a folder" in fails(1, "serve", tmp_path / "nix")
    assert "has no config.json" in fails(1, "serve", tmp_path)


def test_a_library_that_is_not_installed(trained, fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    line = fails(2, "serve", trained.folder)
    assert line == 'ramstrans: uvicorn is not installed; pip install "ramstrans[serve]"'


@pytest.mark.parametrize("content", ["", "  \n", "two words", "schlüssel"])
def test_a_file_without_a_key(trained, tmp_path, fails, content):
    (tmp_path / "key").write_text(content)
    line = fails(2, "serve", trained.folder, "--api_key_file", tmp_path / "key")
    assert "has no key of ASCII letters on one line" in line


def test_a_key_file_that_cannot_be_read(trained, tmp_path, fails):
    assert "No such file" in fails(2, "serve", trained.folder, "--api_key_file", tmp_path / "key")


def test_a_request_that_the_queue_could_not_hold(trained, fails):
    line = fails(2, "serve", trained.folder, "--max_queue", 8, "--max_images", 9)
    assert "--max_images is 9, more than --max_queue 8" in line


def test_options_of_runs_do_not_change_an_exported_model(tmp_path, fails):
    (tmp_path / "model.onnx").touch()
    line = fails(2, "serve", tmp_path, "--device", "cpu", "--num_scales", 1)
    assert "is an exported model, in which --device and --num_scales cannot be changed" in line


def test_priors_with_conditions(tmp_path, fails, monkeypatch):
    """A request says nothing of months, of a run or of an exported folder."""
    from ramstrans.export import standalone

    monkeypatch.undo()
    monkeypatch.setattr(standalone, "open_graph", lambda *_, **_options: None)
    (tmp_path / "model.onnx").touch()
    (tmp_path / "labels.json").write_text('["crow", "wren"]')
    values = '{"resize": [40, 40], "crop": [20, 40], "fit": "squash", "max_pixels": 1000}'
    (tmp_path / "preprocessing.json").write_text(values)
    fitted = Calibration("val", 60, "", (1.5,), (FusedRule(1.5, None, None),))
    (tmp_path / "calibration.json").write_text(fitted.to_json())
    (tmp_path / "priors.csv").write_text("class,month,weight\nwren,6,2\n")
    line = fails(2, "serve", tmp_path, "--port", 0, "--priors", tmp_path / "priors.csv")
    assert "priors.csv has conditions, of which a server knows nothing; give a list" in line

"""`ramstrans explain`, from its arguments to its files."""

import json

from ramstrans.cli import main


def test_explain(trained, colors, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    image = colors / "test" / "Azure_tit" / "0.png"
    assert main(["explain", str(trained.folder), str(image), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    explanation = json.loads(printed.out)
    assert json.loads((tmp_path / "0-explained.json").read_text()) == explanation
    assert (tmp_path / "0-explained.png").stat().st_size > 0
    assert "figure: 0-explained.png" in printed.err


def test_a_strangers_file_is_not_replaced(trained, colors, tmp_path, fails):
    (tmp_path / "bird.json").write_text("a stranger's")
    image = colors / "test" / "Azure_tit" / "0.png"
    command = ["explain", trained.folder, image, "--output", tmp_path / "bird.png"]
    assert "bird.json exists; give another, or --overwrite true" in fails(2, *command)
    assert [path.name for path in tmp_path.iterdir()] == ["bird.json"]

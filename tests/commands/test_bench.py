"""`ramstrans bench`, from its arguments to its file."""

import json

import pytest

from ramstrans.cli import main


def test_the_loader_of_a_data_set(trained, birds, tmp_path, capsys):
    data = ["--data.root", str(birds), "--data.num_workers", "1", "--batch_size", "4"]
    options = ["--run", str(trained.folder), "--repeats", "1", "--device", "cpu"]
    assert main(["bench", *data, *options, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "evaluation" in printed
    assert "training" in printed
    written = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert written["options"]["data"]["num_workers"] == 1
    assert [use["use"] for use in written["loader"]] == ["evaluation", "training"]


def test_a_run_a_config_file_and_a_config_that_comes_along(trained, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = [str(trained.folder), str(tiny), "cub50_deit_tiny_three_scales"]
    assert main(["bench", "--models", *names, "--batch_size", "1", "--repeats", "1", "--device", "cpu"]) == 0
    assert "cub50_deit_tiny_three_scales" in capsys.readouterr().out
    [output] = tmp_path.iterdir()
    assert output.name.startswith("bench-20")
    written = json.loads((output / "bench.json").read_text())
    assert written["command"].startswith("ramstrans bench --models ")
    run, config, three = written["models"]
    assert run["top1"] == trained.report["fused"]["top1"]
    assert run["scale_sizes"] == [[24, 24], [24, 24]]
    assert config["scale_sizes"] == [[32, 32], [32, 32]]
    assert three["scale_sizes"] == [[160, 160], [224, 224], [224, 224]]
    assert (config["top1"], three["zoom_source"]) == (None, "full")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either --models, to compare them, or DATA, to measure its loader"),
        (["--models", "a", "--data.root", ".", "--data.name", "cub"], "give either --models"),
        (["--models", "a", "--run", "b"], "--run has no effect with --models; leave it out"),
        (["--models", "a", "--num_images", "5"], "--num_images has no effect with --models"),
        (["--models", "a", "--repeats", "0"], "repeats"),
        (["--models", "nowhere"], "--models nowhere does not exist; give run folders"),
    ],
)
def test_what_cannot_be_measured_is_refused(fails, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    assert message in fails(2, "bench", *options)
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_not_empty_is_kept(tmp_path, fails):
    (tmp_path / "bench.json").write_text("{}")
    assert "is not empty" in fails(2, "bench", "--models", "toybirds", "--output", tmp_path)
    assert (tmp_path / "bench.json").read_text() == "{}"

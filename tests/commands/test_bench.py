"""`ramstrans bench`, from its arguments to its files."""

import json

import pytest

from ramstrans.cli import main


@pytest.fixture
def tiny_cases(monkeypatch):
    """The table of cases, cut down to two tiny ones."""
    from ramstrans.bench import cases
    from tests.bench.builders import tiny_case

    tiny = {"small": tiny_case(), "gpu-small": tiny_case(needs_gpu=True, reach={"cuda": 1.05})}
    monkeypatch.setattr(cases, "CASES", tiny)


def test_bench_prints_a_table_and_writes_json_and_a_picture(tiny_cases, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--repeats", "2", "--device", "cpu"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "ours / floor" in rows["small"]
    assert "not measured: no GPU" in rows["gpu-small"]
    (output,) = tmp_path.iterdir()
    assert output.name.startswith("bench-20")
    assert {path.name for path in output.iterdir()} == {"bench.json", "bench.png"}
    written = json.loads((output / "bench.json").read_text())
    assert written["command"] == "ramstrans bench --repeats 2 --device cpu"
    assert len(written["cases"][0]["modes"]["eager"]["values"]["ours"]) == 2


def test_bench_measures_the_cases_that_are_named(tiny_cases, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(["bench", "--cases", "gpu-small", "--device", "cpu", "--output", str(output)]) == 0
    assert "small" not in {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()}
    written = json.loads((output / "bench.json").read_text())
    assert [case["name"] for case in written["cases"]] == ["gpu-small"]


def test_bench_list_measures_nothing(tiny_cases, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "--list", "true"]) == 0
    names = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["small", "gpu-small"]
    assert not list(tmp_path.iterdir())


def test_bench_keeps_an_earlier_one(tiny_cases, tmp_path, fails):
    (tmp_path / "bench.json").write_text("{}")
    assert "exists; give another folder" in fails(2, "bench", "--output", tmp_path)
    assert (tmp_path / "bench.json").read_text() == "{}"


def test_bench_of_the_loader(trained, birds, tmp_path, capsys):
    data = ["--data", str(birds), "--data.num_workers", "1", "--batch_size", "4"]
    options = ["--run", str(trained.folder), "--repeats", "1", "--device", "cpu"]
    assert main(["bench", *data, *options, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "evaluation" in printed
    assert "training" in printed
    written = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert written["options"]["data"]["num_workers"] == 1
    assert [use["use"] for use in written["loader"]] == ["evaluation", "training"]


def test_bench_of_models(trained, tiny, tmp_path, capsys):
    """A run folder, a config file and a config that comes along, on the same table."""
    names = [str(trained.folder), str(tiny), "cub50_deit_tiny_three_scales"]
    options = ["--batch_size", "1", "--repeats", "1", "--device", "cpu", "--output", str(tmp_path / "out")]
    assert main(["bench", "--models", *names, *options]) == 0
    assert "cub50_deit_tiny_three_scales" in capsys.readouterr().out
    run, config, three = json.loads((tmp_path / "out" / "bench.json").read_text())["models"]
    assert run["top1"] == trained.report["fused"]["top1"]
    assert run["scale_sizes"] == [[24, 24], [24, 24]]
    assert config["scale_sizes"] == [[32, 32], [32, 32]]
    assert three["scale_sizes"] == [[160, 160], [224, 224], [224, 224]]
    assert (config["top1"], three["zoom_source"]) == (None, "full")


def test_bench_of_no_model(fails):
    assert "nowhere" in fails(2, "bench", "--models", "nowhere")

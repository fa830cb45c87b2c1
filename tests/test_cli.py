"""The command line: the main path in real processes, everything else through `main`, which is the same."""

import csv
import dataclasses
import functools
import io
import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
import yaml

from ramstrans import __version__, cli
from ramstrans.arguments import config_folder
from ramstrans.cli import COMMANDS, main
from ramstrans.commands import data
from ramstrans.data.build import READERS, build_preprocessing
from ramstrans.data.config import DataConfig
from ramstrans.errors import DataError, WeightsError
from ramstrans.model.backbone import build_vit
from ramstrans.model.config import ModelConfig
from ramstrans.model.folder import load_state
from ramstrans.training.config import RunConfig, TrainingConfig
from tests.training.builders import BACKBONE, TINY

CONFIGS = sorted(config_folder().glob("*.yaml"))


@pytest.fixture(scope="module")
def tiny(birds, tmp_path_factory):
    """A config file of a run of two steps."""
    config = {
        "data": {"name": "cub", "root": str(birds), "val_fraction": 0.25},
        "model": {"backbone": BACKBONE, "backbone_options": TINY, "image_size": 32},
        "training": {"max_steps": 2, "batch_size": 4},
        "device": "cpu",
    }
    path = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def config_of(monkeypatch):
    """The RunConfig that `ramstrans train` makes of its arguments; nothing is trained."""

    def config_of(*arguments):
        made = []

        def stop(config, *_, **__):
            made.append(config)
            raise DataError("stopped here")

        monkeypatch.setattr("ramstrans.training.run.prepare", stop)
        assert main(["train", *map(str, arguments)]) == DataError.exit_code
        return made[0]

    return config_of


@pytest.fixture
def fails(capsys):
    """Runs a command that must fail with this code: its one line on standard error."""

    def fails(code, *arguments):
        assert main(list(map(str, arguments))) == code
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "Traceback" not in printed.err
        line = printed.err.splitlines()[-1]
        assert line.startswith("ramstrans: ")
        assert sum(text.startswith("ramstrans: ") for text in printed.err.splitlines()) == 1
        return line

    return fails


def process(*arguments, **options):
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ramstrans", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "120", "OMP_NUM_THREADS": "1"},
        timeout=600,
        **options,
    )


# The main path


def test_train_in_a_process_of_its_own(tiny, tmp_path):
    done = process("train", "--config", tiny, "--output", "run", "--seed", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 images of the test split" in done.stdout
    assert "fused" in done.stdout
    assert "cub: 3 classes" in done.stderr
    assert "cub: 3 classes" not in done.stdout
    assert "Traceback" not in done.stderr
    assert "Warning:" not in done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["num_images"], report["steps"]) == (6, 2)
    assert report["command"].endswith("--output run --seed 3")


def test_predict_in_a_process_of_its_own(trained, colors):
    """Paths come from a pipe; standard output is pure CSV, and the rest is elsewhere."""
    images = sorted((colors / "test").glob("*/*.png"))
    paths = "\n".join([*map(str, images), "missing.jpg"])
    done = process("predict", trained.folder, "-", "--top_k", "2", "--device", "cpu", input=paths)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["path"] for row in rows] == [*map(str, images), "missing.jpg"]
    assert {row["label_1"] for row in rows[:-1]} <= set(trained.prepared.images.class_names)
    assert all(0 < float(row["probability_1"]) <= 1 for row in rows[:-1])
    assert rows[-1]["error"] == "no such file"
    assert rows[-1]["label_1"] == ""
    assert "7 photographs, 1 of them unreadable" in done.stderr


def test_help_and_names_come_without_torch():
    code = (
        "import sys, ramstrans; from ramstrans.cli import main; sys.stdout = sys.stderr\n"
        "try: main(['--help'])\n"
        "finally: print('HEAVY', {'torch', 'timm', 'matplotlib', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0
    assert "HEAVY set()" in done.stderr
    assert all(name in done.stderr for name in COMMANDS)


def test_evaluate(trained, tmp_path, capsys, no_pictures):
    output = tmp_path / "out"
    assert main(["evaluate", str(trained.folder), "--output", str(output), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert "6 images of the test split" in printed.out
    assert f"report: {output / 'report.md'}" in printed.err
    report = json.loads((output / "report.json").read_text())
    assert report["fused"]["top1"] == trained.report["fused"]["top1"]


def test_evaluate_writes_into_the_run_unless_told_otherwise(trained, capsys, no_pictures):
    before = (trained.folder / "report.json").read_bytes()
    assert main(["evaluate", str(trained.folder), "--split", "val", "--device", "cpu"]) == 0
    assert json.loads((trained.folder / "evaluation-val" / "report.json").read_text())["num_images"] == 3
    assert (trained.folder / "report.json").read_bytes() == before
    shutil.rmtree(trained.folder / "evaluation-val")


def test_early_exit_is_chosen_then_used(trained, colors, tmp_path, capsys, no_pictures):
    run = tmp_path / "run"
    shutil.copytree(trained.folder, run)
    photograph = str(colors / "test" / "Azure_tit" / "0.png")
    line = ["predict", str(run), photograph, "--format", "jsonl", "--device", "cpu", "--early-exit"]
    assert main([*line, "auto"]) == 2
    assert "no confidence was chosen for this model" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--early-exit", "auto", "--device", "cpu"]) == 0
    assert "Early exit at confidence" in capsys.readouterr().out
    assert main([*line, "auto"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == photograph
    for confidence, num_looks in (("1e-6", 1), ("1.5", 2)):
        assert main([*line, confidence]) == 0
        assert len(json.loads(capsys.readouterr().out)["scales"]) == num_looks


@pytest.mark.parametrize(
    ("value", "reason"), [("0", "is 0.0; give more"), ("-1", "is -1.0; give more"), ("now", "give auto, or")]
)
def test_early_exit_that_is_no_confidence(trained, fails, value, reason):
    assert reason in fails(2, "evaluate", trained.folder, "--early-exit", value, "--device", "cpu")


def test_explain(trained, colors, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    image = colors / "test" / "Azure_tit" / "0.png"
    assert main(["explain", str(trained.folder), str(image), "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    explanation = json.loads(printed.out)
    assert json.loads((tmp_path / "0-explained.json").read_text()) == explanation
    assert (tmp_path / "0-explained.png").stat().st_size > 0
    assert "picture: 0-explained.png" in printed.err


def test_data_make_then_check(tmp_path, monkeypatch, capsys):
    from ramstrans.data.layouts import toybirds

    few = functools.partial(
        toybirds.make_toybirds, num_classes=2, train_per_class=3, test_per_class=1, image_size=32
    )
    monkeypatch.setattr(toybirds, "make_toybirds", few)
    root = tmp_path / "birds"
    assert main(["data", "make", "toybirds", str(root)]) == 0
    assert capsys.readouterr().out == f"{root}\n"
    assert main(["data", "check", "--data.root", str(root), "--data.val_fraction", "0"]) == 0
    rows = capsys.readouterr().out.splitlines()
    cells = [row.replace("│", " ").split() for row in rows]
    assert ["train", "6", "2", "3", "3"] in cells
    assert ["test", "2", "2", "1", "1"] in cells


def test_data_check_names_what_cannot_be_read(with_broken_file, capsys):
    root, broken = with_broken_file
    assert main(["data", "check", "--data.name", "folder", "--data.root", str(root)]) == 3
    assert f"unreadable: {broken}" in capsys.readouterr().out


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warning", 0), ("missing", 1)])
def test_doctor_exits_by_what_is_missing(monkeypatch, capsys, status, code):
    from ramstrans.doctor import Check

    monkeypatch.setattr("ramstrans.doctor.diagnose", lambda: [Check("torch", "2.11", status)])
    assert main(["doctor"]) == code
    assert "torch" in capsys.readouterr().out


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
    assert main(["bench", "--list"]) == 0
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


# Options and config files


def test_print_config_is_a_config_file(tiny, tmp_path, capsys):
    printed = []
    for config in (tiny, tmp_path / "again.yaml"):
        if printed:
            config.write_text(printed[0])
        with pytest.raises(SystemExit) as ended:
            main(["train", "--config", str(config), "--training.lr", "0.007", "--print_config"])
        assert not ended.value.code
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    values = yaml.safe_load(printed[0])
    assert values["training"]["lr"] == 0.007
    assert values["model"]["backbone_options"] == TINY


def test_a_printed_config_makes_the_same_run(tiny, tmp_path, capsys, config_of):
    with pytest.raises(SystemExit):
        main(["train", "--config", str(tiny), "--data.resize", "[41, 37]", "--print_config"])
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    direct = config_of("--config", tiny, "--data.resize", "[41, 37]")
    assert direct.data.resize == (41, 37)
    assert config_of("--config", tmp_path / "printed.yaml") == direct


def test_the_options_of_a_run_make_it_again(trained, tmp_path, no_pictures):
    again = tmp_path / "again"
    assert main(["train", "--config", str(trained.folder / "run.yaml"), "--output", str(again)]) == 0
    first, second = (load_state(folder) for folder in (trained.folder, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_that_comes_along_works(path, config_of, monkeypatch):
    """By the very command in its head, as far as can be told without its data and weights."""
    command = shlex.split(path.read_text().splitlines()[0].removeprefix("# "))
    assert command[:2] == ["ramstrans", "train"]
    config = config_of(*command[2:])
    values = yaml.safe_load(path.read_text())
    assert config.data.name == values["data"]["name"]
    assert config.training.epochs == values["training"]["epochs"]
    assert config.model.backbone == values["model"]["backbone"]
    with torch.device("meta"):
        vit = build_vit(dataclasses.replace(config.model, num_classes=5))
    cfg = vit.pretrained_cfg
    preprocessing = build_preprocessing(
        config.data, config.model.input_size, config.model.zoom_source, cfg["mean"], cfg["std"]
    )
    assert preprocessing.crop >= config.model.input_size


@pytest.mark.parametrize("name", READERS)
def test_every_layout_has_a_default_config(name, config_of, tmp_path):
    config = config_of(f"--data.name={name}", "--data.root", tmp_path)
    assert config.data.name == name
    assert config.training.epochs != TrainingConfig.epochs or config.training.max_steps == 10000


def test_plain_train_is_toybirds(config_of):
    config = config_of()
    assert (config.data.name, config.data.root, config.model.zoom_source) == ("toybirds", None, "full")


@pytest.mark.parametrize("given", [["--config", "folder"], ["--config=folder"]])
def test_a_config_that_comes_along_is_found_by_name_alone(given, config_of, tmp_path, monkeypatch):
    """The name is also that of a layout, part of a path, and a folder's here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    rest = ["--data.name", "folder", "--data.root", "photographs/folder", "--output", "runs/folder"]
    config = config_of(*given, *rest)
    assert config.model.backbone == "deit_tiny_patch16_224"
    assert (config.data.name, str(config.data.root)) == ("folder", "photographs/folder")
    assert str(config.output) == "runs/folder"


def test_options_override_the_config_wherever_they_stand(tiny, config_of):
    for arguments in (["--seed", "5", "--config", tiny], ["--config", tiny, "--seed", "5"]):
        assert config_of(*arguments).seed == 5
    config = config_of("--config", tiny, "--training.loss_weights", "[1.0, 0.5]", "--model.num_scales=2")
    assert config.training.loss_weights == (1.0, 0.5)
    assert config.training.max_steps == 2


def test_every_option_is_in_the_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    assert not ended.value.code
    words = set(capsys.readouterr().out.replace("=", " ").split())
    groups = {"": RunConfig, "data.": DataConfig, "model.": ModelConfig, "training.": TrainingConfig}
    options = {
        f"--{group}{field.name}" for group, kind in groups.items() for field in dataclasses.fields(kind)
    }
    assert options - {"--data", "--model", "--training"} <= words
    assert {"--config", "--dry-run"} <= words


@pytest.mark.parametrize("command", [*COMMANDS, *(f"data {name}" for name in data.COMMANDS)])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert not ended.value.code
    assert "usage: " in capsys.readouterr().out.lower()


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code
    assert capsys.readouterr().out == f"ramstrans {__version__}\n"


def test_dry_run_writes_nothing(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", str(tiny), "--output", "run", "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "nothing was trained; a run would be written to run" in printed.err
    assert not list(tmp_path.iterdir())


# What goes wrong


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "subcommand"),
        (["fly"], "fly"),
        (["train", "--nonsense", "1"], "nonsense"),
        (["train", "--data.nam", "cub"], "data.nam"),
        (["train", "--training.lr", "fast"], "lr"),
        (["train", "--training.lr", "0"], "training.lr is 0"),
        (["train", "--training.optimizer", "lion"], "optimizer"),
        (["train", "--seed", "-1"], "seed is -1"),
        (["train", "--data.name", "cub"], "no --data.root was given"),
        (["train", "--model.thresholds", "[1.2]"], "one for each of the 2 scales"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "--config"], "config"),
        (["evaluate"], "run"),
        (["evaluate", "run", "--split", "all"], "split"),
        (["predict", "run"], "inputs"),
        (["predict", "run", "a.jpg", "--top_k", "0"], "top_k"),
        (["predict", "run", "a.jpg", "--format", "xml"], "format"),
        (["predict", "run", "a.jpg", "--output", "birds.txt"], "no known suffix"),
        (["data", "make", "fish", "root"], "fish"),
        (["data", "check", "--data.name", "cub"], "no --data.root"),
        (["bench", "--cases", "fast"], "no such case; there are inference-224-fp32,"),
        (["bench", "--repeats", "0"], "--repeats is 0"),
        (["bench", "--run", "run"], "give --data.root too"),
        (["bench", "--device", "cuda:97"], "cuda:97"),
    ],
)
def test_a_wrong_option_is_named(arguments, said, fails):
    assert said in fails(2, *arguments)


@pytest.mark.parametrize("text", ["trainig: {lr: 0.1}", "training: {lr: 0.1", "training: {rate: 0.1}", "- 1"])
def test_a_wrong_config_file_is_told(text, fails, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    fails(2, "train", "--config", path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model.backbone", "vit_tinny_patch16_224"], "did you mean vit_tiny"),
        (["--model.backbone", "resnet18"], "is not a plain ViT"),
        (["--model.image_size", "7"], "smaller than a patch"),
        (["--model.image_size", "33"], "not a multiple of the patch"),
        (["--data.crop", "64", "--data.resize", "48"], "smaller than data.crop 64x64"),
        (["--device", "cuda:97"], "cuda:97"),
        (["--model.num_classes", "4"], "the data set has 3"),
    ],
)
def test_what_cannot_be_built_is_told_and_nothing_is_written(options, said, tiny, tmp_path, fails):
    assert said in fails(2, "train", "--config", tiny, "--output", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_kept(tiny, trained, fails):
    before = (trained.folder / "model.safetensors").read_bytes()
    assert "--overwrite true" in fails(2, "train", "--config", tiny, "--output", trained.folder)
    assert (trained.folder / "model.safetensors").read_bytes() == before


def empty(root):
    root.mkdir()


def one_class(root):
    (root / "Wren").mkdir(parents=True)
    (root / "Wren" / "0.png").write_bytes(b"x")


def empty_class(root):
    one_class(root)
    (root / "Crow").mkdir()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _root: None, "does not exist"),
        (empty, "no class folders"),
        (one_class, "one class only, 'Wren'"),
        (empty_class, "holds no images"),
    ],
    ids=["missing", "empty", "one class", "empty class"],
)
def test_photographs_that_cannot_be_used(make, said, tmp_path, fails):
    root = tmp_path / "photographs"
    make(root)
    for command in ("train", "data check"):
        assert said in fails(3, *command.split(), "--data.name", "folder", "--data.root", root)


@pytest.fixture
def with_broken_file(colors, tmp_path):
    root = tmp_path / "colors"
    shutil.copytree(colors, root)
    broken = root / "test" / "Coral_ibis" / "1.png"
    broken.write_bytes(broken.read_bytes()[:999])
    return root, broken


def test_a_broken_photograph_stops_and_is_named(with_broken_file, tiny, tmp_path, fails):
    root, broken = with_broken_file
    data = ["--data.name", "folder", "--data.root", root, "--output", tmp_path / "run"]
    line = fails(3, "train", "--config", tiny, *data)
    assert str(broken) in line
    assert "--data.on_unreadable skip" in line
    assert not (tmp_path / "run").exists()


def test_a_broken_photograph_is_left_out_if_asked_for(with_broken_file, tiny, capsys):
    root, broken = with_broken_file
    data = ["--data.name", "folder", "--data.root", str(root), "--data.on_unreadable", "skip"]
    assert main(["train", "--config", str(tiny), *data, "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert f"left out: {broken}" in printed.err
    assert "5 test images" in printed.err
    assert printed.out == ""


@pytest.fixture
def model_folder(trained, tmp_path):
    """A copy of the trained model's two files."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copy(trained.folder / name, folder)
    return folder


@pytest.mark.parametrize("command", ["evaluate", "predict", "explain"])
def test_a_truncated_model_is_told(command, model_folder, colors, tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    weights = model_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    image = [] if command == "evaluate" else [colors / "test" / "Azure_tit" / "0.png"]
    line = fails(1, command, model_folder, *image, "--device", "cpu")
    assert "model.safetensors is truncated" in line
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
    assert len(list(model_folder.iterdir())) == 2


def test_a_model_of_a_newer_version_is_told(model_folder, fails):
    path = model_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    assert "upgrade with pip" in fails(2, "predict", model_folder, "bird.jpg")


@pytest.mark.parametrize("command", ["evaluate", "predict", "explain"])
def test_a_missing_run_is_told(command, tmp_path, fails):
    image = [] if command == "evaluate" else ["bird.jpg"]
    assert "nowhere is no folder" in fails(1, command, tmp_path / "nowhere", *image)


def test_weights_without_a_network_are_told(tiny, tmp_path, monkeypatch, fails):
    import timm

    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("Network is unreachable")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: [])
    arguments = ["--model.weights", "timm", "--output", tmp_path / "run"]
    line = fails(1, "train", "--config", tiny, *arguments)
    assert "Network is unreachable" in line
    assert "--model.weights FILE.safetensors" in line
    assert not (tmp_path / "run").exists()


def test_debug_shows_where(tmp_path):
    with pytest.raises(WeightsError, match="is no folder"):
        main(["evaluate", str(tmp_path / "nowhere"), "--debug"])


def test_an_error_of_our_own_is_one_line_too(monkeypatch, fails):
    def break_down(*_):
        """Break down."""
        raise ZeroDivisionError("a\nb")

    monkeypatch.setitem(cli.COMMANDS, "doctor", COMMANDS["doctor"]._replace(run=break_down))
    assert fails(1, "doctor") == "ramstrans: ZeroDivisionError: a b (--debug shows where)"
    with pytest.raises(ZeroDivisionError):
        main(["--debug", "doctor"])


def test_ctrl_c_is_no_traceback(monkeypatch, fails):
    def stop(*_):
        """Stop."""
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "doctor", COMMANDS["doctor"]._replace(run=stop))
    assert fails(130, "doctor") == "ramstrans: stopped"

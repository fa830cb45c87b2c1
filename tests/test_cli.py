"""The command line itself: help, config files, options, and how errors come out."""

import dataclasses
import logging
import shlex
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import yaml

from ramstrans import __version__
from ramstrans.cli import COMMANDS, main
from ramstrans.commands import data
from ramstrans.commands.configs import config_folder
from ramstrans.console import progress_bar, results
from ramstrans.data.build import READERS, build_preprocessing
from ramstrans.data.config import DataConfig
from ramstrans.errors import WeightsError
from ramstrans.models.backbones import build_backbone
from ramstrans.models.config import ModelConfig
from ramstrans.training.config import RunConfig, TrainingConfig

CONFIGS = sorted(config_folder().glob("*.yaml"))


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


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_that_comes_along_works(path, config_of, monkeypatch, tmp_path):
    """By the very command in its head, as far as can be told without its data and weights."""
    command = shlex.split(path.read_text().splitlines()[0].removeprefix("# "))
    assert command[:2] == ["ramstrans", "train"]
    monkeypatch.chdir(tmp_path)
    if command[2:]:
        (tmp_path / command[2]).mkdir()
        (tmp_path / "deit_tiny_patch16_224.safetensors").touch()
    config = config_of(*command[2:])
    values = yaml.safe_load(path.read_text())
    assert "name" not in values["data"] or config.data.name == values["data"]["name"]
    assert config.training.epochs == values["training"]["epochs"]
    assert config.model.backbone == values["model"]["backbone"]
    with torch.device("meta"):
        build_backbone(dataclasses.replace(config.model, num_classes=5))
    preprocessing = build_preprocessing(config.data, config.model.input_size, config.model.zoom_source)
    for crop, side in zip(preprocessing.crop, config.model.input_size, strict=True):
        assert crop >= side


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
    (tmp_path / "photographs" / "folder").mkdir(parents=True)
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
        main(["train", "--help", "all"])
    assert not ended.value.code
    words = set(capsys.readouterr().out.replace(",", " ").split())
    groups = {"": RunConfig, "data.": DataConfig, "model.": ModelConfig, "training.": TrainingConfig}
    options = {
        f"--{group}{field.name}" for group, kind in groups.items() for field in dataclasses.fields(kind)
    }
    assert options - {"--data", "--model", "--training"} <= words
    assert {"--config", "--dry_run"} <= words


def test_every_command_has_help(capsys):
    for command in [*COMMANDS, *(f"data {name}" for name in data.COMMANDS)]:
        with pytest.raises(SystemExit) as ended:
            main([*command.split(), "--help"])
        assert not ended.value.code
        printed = " ".join(capsys.readouterr().out.split())
        assert f"usage: ramstrans {command}" in printed, command


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code
    assert capsys.readouterr().out == f"ramstrans {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "`ramstrans` needs a command"),
        (["fly"], "fly"),
        (["train", "--nonsense", "1"], "nonsense"),
        (["train", "--data.nam", "cub"], "data.nam"),
        (["train", "--training.lr", "fast"], "lr"),
        (["train", "--training.lr", "0"], "training.lr is 0"),
        (["train", "--training.optimizer", "adamm"], "training.optimizer is 'adamm'; give sgd, adamw"),
        (["train", "--seed", "-1"], "seed is -1"),
        (["train", "--data.name", "cub"], "no --data.root was given"),
        (["train", "--model.thresholds", "[1.2]"], "one for each of the 2 scales"),
        (["train", "--data", "photographs"], "--data is a section of options, and 'photographs' none"),
        (["train", "--data", "photographs"], "e.g. --data.root photographs"),
        (["train", "--data.name", "folder", "--data.group_column", "site"], "would not be grouped"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "--config"], "config"),
        (["evaluate"], "needs RUN"),
        (["evaluate", "run", "--split", "all"], "split"),
        (["predict", "run"], "needs INPUTS"),
        (["predict", "run", "a.jpg", "--top_k", "0"], "top_k"),
        (["predict", "run", "a.jpg", "--format", "xml"], "format"),
        (["predict", "run", "a.jpg", "--output", "birds.txt"], "no known suffix"),
        (["data", "make", "fish", "root"], "fish"),
        (["data", "check", "--data.name", "cub"], "no --data.root"),
        (["bench", "--models", "toybirds", "--device", "cuda:97"], "cuda:97"),
    ],
)
def test_a_wrong_option_is_named(arguments, said, fails):
    assert said in fails(2, *arguments)


def test_debug_shows_where(tmp_path):
    with pytest.raises(WeightsError, match="is not a folder"):
        main(["evaluate", str(tmp_path / "nowhere"), "--debug"])


def test_a_warning_is_one_line_and_is_printed_once(doctor_does, capsys):
    def run(_options, _given):
        warnings.simplefilter("always")
        for _ in range(2):
            warnings.warn("data.fold is ignored\nwithout data.folds", stacklevel=1)
        return 0

    doctor_does(run)
    for _ in range(2):
        assert main(["doctor"]) == 0
        assert capsys.readouterr().err == "warning: data.fold is ignored without data.folds\n"


@pytest.mark.parametrize("where", [["--quiet", "true", "doctor"], ["doctor", "--quiet=true"]])
def test_quiet_leaves_warnings_and_results(where, doctor_does, capsys):
    def run(_options, given):
        logger = logging.getLogger("ramstrans.doctor")
        logger.info("a line of the log")
        logger.warning("trouble")
        with progress_bar() as progress:
            progress(1, 2, "working")
        results().print("a result of", *given)
        return 0

    doctor_does(run)
    assert main(where) == 0
    assert capsys.readouterr() == ("a result of doctor\n", "warning: trouble\n")
    assert main(["doctor", "--quiet", "false"]) == 0  # and the next command is not quiet
    printed = capsys.readouterr().err
    assert "a line of the log" in printed
    assert "working" in printed


@pytest.mark.parametrize("given", [["--quiet"], ["--quiet", "doctor"], ["--quiet=maybe"]])
def test_quiet_needs_true_or_false(given, fails):
    assert "give --quiet true or --quiet false" in fails(2, "doctor", *given)


def test_an_error_of_our_own_is_one_line_too(monkeypatch, fails):
    def break_down(*_):
        """Break down."""
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr(COMMANDS["doctor"], "run", break_down)
    assert fails(1, "doctor") == "ramstrans: ZeroDivisionError: a b (--debug shows where)"
    with pytest.raises(ZeroDivisionError):
        main(["--debug", "doctor"])


def test_ctrl_c_is_no_traceback(monkeypatch, fails):
    def stop(*_):
        """Stop."""
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS["doctor"], "run", stop)
    assert fails(130, "doctor") == "ramstrans: stopped"


@pytest.fixture
def doctor_does(monkeypatch):
    """Let `ramstrans doctor` do something else."""

    def replace(run):
        run.__doc__ = "Help."
        monkeypatch.setattr(COMMANDS["doctor"], "run", run)

    return replace


def test_sigterm_stops_as_ctrl_c_does_and_cleans_up(doctor_does, fails):
    cleaned = []

    def run(*_):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            cleaned.append(True)

    doctor_does(run)
    assert fails(143, "doctor") == "ramstrans: stopped by SIGTERM"
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_program_keeps_its_own_sigterm(doctor_does):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
    doctor_does(lambda *_: signal.raise_signal(signal.SIGTERM) or 0)
    try:
        assert main(["doctor"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [True]


def test_other_threads_of_a_program_may_run_commands(doctor_does):
    doctor_does(lambda *_: 7)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(main, ["doctor"]).result() == 7

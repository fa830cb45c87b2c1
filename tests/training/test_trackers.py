import json
import sys
from contextlib import suppress
from types import SimpleNamespace

import pytest
import yaml
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from ramstrans.cli import main
from ramstrans.errors import ConfigError, StoppedError, TrainingError
from ramstrans.training import trackers as module
from ramstrans.training.config import RunConfig
from ramstrans.training.log import numbers_of
from ramstrans.training.run import prepare, train
from ramstrans.training.trackers import closing_trackers, log_numbers
from tests.tiny import tiny_run, write_config


class Recorder(GeneralTracker):
    """A tracker that keeps what it gets."""

    name, requires_logging_directory = "swanlab", False
    made: list = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, project, **options):
        super().__init__()
        self.project, self.options, self.config, self.rows, self.finished = project, options, None, [], 0
        self.started = False
        Recorder.made.append(self)

    @property
    def tracker(self):
        return self

    def start(self):
        self.started = True

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step=None, **_):
        assert self.started
        self.rows.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def recorder(monkeypatch):
    """Two of Accelerate's trackers, as if their libraries were installed."""
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "swanlab", Recorder)
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "wandb", Recorder)
    monkeypatch.setattr(module, "is_installed", lambda name: True)
    Recorder.made.clear()
    return Recorder.made


def test_several_trackers_get_the_numbers_and_the_options(birds, tmp_path, recorder, no_pictures):
    config = tiny_run(birds, tracker=("tensorboard", "swanlab", "wandb"))
    report = train(prepare(config), tmp_path / "jays")
    one, other = recorder
    assert (one.project, one.options) == ("ramstrans", {"experiment_name": "jays"})
    assert other.options == {"name": "jays", "dir": str(tmp_path / "jays")}
    assert (one.finished, other.finished) == (1, 1)
    assert one.config["training.lr"] == 0.003
    assert one.config["data.root"] == str(birds)
    assert one.config["data.val_fraction"] == 0.25
    rows = [json.loads(line) for line in (tmp_path / "jays" / "metrics.jsonl").read_text().splitlines()]
    assert [values for _, values in one.rows[:-1]] == [numbers_of(row) for row in rows]
    step, tested = one.rows[-1]
    assert (step, tested["test/top1_fused"]) == (5, report["fused"]["top1"])
    assert tested["test/top1_scale_2"] == report["scales"][1]["top1"]
    assert one.rows == other.rows
    assert list((tmp_path / "jays" / "tensorboard").glob("events.out.tfevents*"))


def test_no_tracker_is_a_run_without_one(birds, tmp_path, no_pictures):
    train(prepare(tiny_run(birds, tracker=())), tmp_path / "run")
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_library_that_is_missing_is_one_line_before_files_are_read(tmp_path, fails, monkeypatch):
    monkeypatch.setattr(module, "is_installed", lambda name: False)
    config = write_config(tmp_path / "tiny.yaml", tmp_path, model={"image_size": 32})
    line = fails(2, "train", "--config", config, "--tracker", "wandb")
    assert line.endswith(
        '--tracker wandb: wandb is not installed; `pip install "ramstrans[wandb]"`, or give another'
    )
    line = fails(2, "train", "--config", config, "--tracker", "[mlflow,swanlab]")
    assert '`pip install "ramstrans[mlflow]" swanlab`' in line


def test_a_folder_of_the_name_is_not_the_library(tmp_path, monkeypatch):
    (tmp_path / "swanlab").mkdir()  # as wandb leaves one where it was used
    monkeypatch.syspath_prepend(tmp_path)
    assert not module.is_installed("swanlab")


def test_an_unknown_tracker_is_one_line(fails):
    line = fails(2, "train", "--tracker", "neptune")
    assert line.startswith("ramstrans: --tracker is 'neptune'; give tensorboard, wandb, mlflow")
    assert line.endswith("or a list, e.g. [tensorboard,wandb]")
    with pytest.raises(ConfigError, match="tracker is 'neptune'; give tensorboard, wandb"):
        RunConfig(tracker=("wandb", "neptune"))


def test_a_tracker_that_cannot_start_ends_the_run(birds, tmp_path, recorder, monkeypatch):
    def refuse(_self):
        raise ConnectionError("no login\n for you")

    monkeypatch.setattr(Recorder, "start", refuse)
    with pytest.raises(
        TrainingError,
        match=r"^--tracker wandb cannot start \(no login for you\); see its login and address, or leave",
    ):
        train(prepare(tiny_run(birds, tracker="wandb")), tmp_path / "run")


def test_the_choice_is_saved_and_may_change_in_a_resumed_run(birds, tmp_path, recorder, no_pictures):
    config = write_config(tmp_path / "tiny.yaml", birds, training={"epochs": 1, "batch_size": 4})
    run = tmp_path / "run"
    assert main(["train", "--config", str(config), "--tracker", "[swanlab]", "--output", str(run)]) == 0
    assert yaml.safe_load((run / "run.yaml").read_text())["tracker"] == ["swanlab"]
    assert main(["train", "--resume", str(run), "--training.epochs", "2", "--tracker", "wandb"]) == 0
    assert [made.options.get("name") for made in recorder] == [None, "run"]
    assert yaml.safe_load((run / "run.yaml").read_text())["tracker"] == "wandb"


class Rowing(GeneralTracker):
    """A tracker that loses its server at the second row."""

    name, requires_logging_directory, main_process_only = "clearml", False, False

    def __init__(self):
        super().__init__(_blank=True)
        self.rows = []

    def log(self, values, step=None):
        if self.rows:
            raise ConnectionError("gone\nfor good")
        self.rows.append((step, values))


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(caplog):
    breaking, other = Rowing(), Recorder("ramstrans")
    other.start()
    accelerator = SimpleNamespace(trackers=[breaking, other])
    for step in (1, 2, 3):
        log_numbers(accelerator, {"train/loss": 1 / step}, step)
    assert [step for step, _ in breaking.rows] == [1]
    assert [step for step, _ in other.rows] == [1, 2, 3]
    assert caplog.messages == ["--tracker clearml fails (gone for good); the run goes on without it"]
    assert accelerator.trackers == [other]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (None, "FINISHED", None),
        (StoppedError("saved", 15), "KILLED", 143),
        (KeyboardInterrupt(), "KILLED", 1),
        (TrainingError("not finite"), "FAILED", 1),
    ],
)
def test_trackers_are_told_how_a_run_ended(error, status, code, monkeypatch):
    ended, finished = [], []
    mlflow = SimpleNamespace(end_run=lambda status="FINISHED": ended.append(status))
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    run = SimpleNamespace(finish=lambda exit_code=None: finished.append(exit_code))
    wandb = SimpleNamespace(name="wandb", tracker=run, finish=run.finish)
    accelerator = SimpleNamespace(trackers=[SimpleNamespace(name="mlflow", finish=mlflow.end_run), wandb])
    with suppress(BaseException), closing_trackers(accelerator):
        if error:
            raise error
    assert (ended, finished, accelerator.trackers) == ([status], [code], [])

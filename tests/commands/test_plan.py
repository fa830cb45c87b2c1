"""`ramstrans plan`, from its arguments to its exit code."""

import json

import pytest
import yaml

from ramstrans.arguments import completed, config_folder
from ramstrans.cli import main
from ramstrans.commands.options import Parser
from ramstrans.commands.plan import add_options, task_of
from ramstrans.errors import ConfigError, OutputError, UsageError
from tests.training.builders import BACKBONE, TINY


@pytest.fixture
def options(tmp_path):
    """Arguments that name a config of a tiny run, without data."""
    config = {
        "model": {"backbone": BACKBONE, "backbone_options": TINY, "image_size": 32},
        "training": {"batch_size": 6, "epochs": 2, "gradient_accumulation_steps": 3},
        "device": "cpu",
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["--config", path]


@pytest.fixture
def ramstrans_plan(monkeypatch, capsys):
    """Runs the command: its exit code, standard output and standard error."""
    monkeypatch.setenv("COLUMNS", "80")

    def ramstrans_plan(*arguments):
        code = main(["plan", *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return ramstrans_plan


@pytest.fixture
def task():
    """The config and number of images that arguments ask for; nothing is measured."""

    def task(*arguments):
        parser = Parser(prog="ramstrans plan")
        add_options(parser)
        return task_of(parser.parse_args(list(map(str, arguments))), lambda *_: None)

    return task


def test_a_plan_without_data(ramstrans_plan, options, tmp_path):
    output = tmp_path / "new" / "plan.json"
    code, out, err = ramstrans_plan(
        *options, *("--memory", "12GB", "--num_images", 100, "--num_classes", 5, "--output", output)
    )
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].strip() == "6 images a step, 6 a process; 12.0 GB each"
    assert lines[1].split() == [
        *(
            "precision",
            "checkpointing",
            "most",
            "accumulation",
            "images",
            "peak",
            "s/step",
            "hours",
        ),
    ]
    rows = [line.split() for line in lines[2:6]]
    assert [row[:2] for row in rows] == [["fp32", "no"], ["fp32", "yes"], ["bf16", "no"], ["bf16", "yes"]]
    assert all(row[3:5] == ["1", "6"] for row in rows)
    assert "Measured on cpu in one process: steps of a few random images, the whole model" in out
    assert "34 steps" in out
    assert lines[-1].startswith("--training.precision ")
    assert lines[-1].endswith(
        " --training.gradient_accumulation_steps 1 --training.gradient_checkpointing false"
    )
    assert "profiler" not in err
    written = json.loads(output.read_text())
    assert written["command"].startswith("ramstrans plan --config ")
    assert [way["precision"] for way in written["ways"]] == ["fp32", "fp32", "bf16", "bf16"]
    assert lines[-1] in {way["options"] for way in written["ways"]}


def test_nothing_that_fits_is_exit_code_1_and_the_table_is_there(ramstrans_plan, options, tmp_path):
    output = tmp_path / "plan.json"
    code, out, err = ramstrans_plan(
        *options, *("--memory", "0.3MB", "--num_images", 100, "--num_classes", 5, "--output", output)
    )
    assert code == 1
    assert out.count("does not fit") == 4
    [line] = [line for line in err.splitlines() if line.startswith("ramstrans: ")]
    assert line.startswith(
        "ramstrans: nothing fits into 0.3 MB a process: the least is one image at a time in "
    )
    assert [way["options"] for way in json.loads(output.read_text())["ways"]] == [None] * 4


def test_several_processes_are_told(ramstrans_plan, options):
    arguments = ("--memory", "1GB", "--num_images", 100, "--num_classes", 5, "--processes", 4)
    code, out, _ = ramstrans_plan(*options, *arguments, "--training.fsdp", "true")
    assert code == 0
    assert "6 images a step, 2 a process; 1.0 GB each" in out
    assert "4 processes (FSDP): reckoned from one, as if none waited for another." in out
    assert "DDP" in ramstrans_plan(*options, *arguments)[1]


def test_the_data_set_tells_images_and_classes(task, options, birds):
    data = ("--data.name", "cub", "--data.root", birds, "--data.val_fraction", "0.25")
    config, num_images = task(*options, *data)
    assert (config.model.num_classes, num_images) == (3, 9)
    assert task(*options, *data, "--num_images", 1000)[1] == 1000


def test_a_config_of_a_set_that_is_not_here_will_do(task, tmp_path):
    path = tmp_path / "cub.yaml"
    path.write_text(yaml.safe_dump({"data": {"name": "cub", "crop": 448}, "model": {"zoom_source": "full"}}))
    config, num_images = task("--config", path, "--num_images", 5994, "--model.num_classes", 200)
    assert (config.model.num_classes, num_images, config.data.crop) == (200, 5994, 448)
    assert config.model.zoom_source == "full"


def test_classes_of_a_data_set_are_its_own(task, options, birds):
    data = ("--data.name", "cub", "--data.root", birds)
    with pytest.raises(ConfigError, match="num_classes is 7; the data set has 3"):
        task(*options, *data, "--num_classes", 7)


@pytest.mark.parametrize("given", [[], ["--num_images", 5], ["--num_classes", 5]])
def test_without_data_both_numbers_are_needed(task, options, given):
    with pytest.raises(UsageError, match="give --num_images and --num_classes, or"):
        task(*options, *given)


def test_an_output_that_cannot_be_is_told_first(ramstrans_plan, options, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ramstrans.training.planning.plan.plan", lambda *_, **__: pytest.fail("nothing is to be measured")
    )
    numbers = ("--num_images", 100, "--num_classes", 5, "--output")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "kept.json").write_text("kept")
    for name, message in {
        "plan.txt": "is no .json file",
        "folder.json": "is a folder",
        "kept.json": "--overwrite true",
    }.items():
        code, _, err = ramstrans_plan(*options, *numbers, tmp_path / name)
        assert code == OutputError.exit_code
        assert message in err
    assert (tmp_path / "kept.json").read_text() == "kept"


def test_an_amount_that_is_none_is_told(ramstrans_plan, options):
    code, _, err = ramstrans_plan(*options, "--memory", "12", "--num_images", 100, "--num_classes", 5)
    assert code == UsageError.exit_code
    assert "'12' is no amount of memory; give e.g. 12GB" in err


def test_a_config_that_comes_along_is_found_by_name_alone():
    named = completed(["plan", "--config", "toybirds", "--memory", "1GB"])
    assert named == ["plan", f"--config={config_folder() / 'toybirds.yaml'}", "--memory", "1GB"]
    assert completed(["plan", "--memory", "1GB"]) == ["plan", "--memory", "1GB"]

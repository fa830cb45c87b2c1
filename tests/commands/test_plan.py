"""`ramstrans plan`, from its arguments to its exit code."""

import pytest
import yaml

from ramstrans.cli import main
from ramstrans.commands.options import Parser
from ramstrans.commands.plan import add_options, workload
from ramstrans.errors import ConfigError, UsageError
from tests.training.builders import BACKBONE, TINY

NUMBERS = ("--num_images", 100, "--model.num_classes", 5)


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
def work():
    """The config and number of images that arguments ask for; nothing is measured."""

    def work(*arguments):
        parser = Parser(prog="ramstrans plan")
        add_options(parser)
        return workload(parser.instantiate(parser.parse_args(list(map(str, arguments)))), lambda *_: None)

    return work


def test_a_plan_without_data(ramstrans_plan, options):
    code, out, err = ramstrans_plan(*options, "--memory", "12GB", *NUMBERS)
    assert code == 0, err
    lines = out.splitlines()
    title = "6 images per step, 6 per process; 34 steps; 12.0 GB per process; measured on cpu"
    assert " ".join(out.split()).startswith(title)  # in 80 columns
    [start] = [number for number, line in enumerate(lines) if line.startswith("precision")]
    assert lines[start].split() == [
        *("precision", "checkpointing", "max", "images", "accumulation", "peak", "s/step", "hours")
    ]
    rows = [line.split() for line in lines[start + 1 : start + 5]]
    assert [row[:2] for row in rows] == [["fp32", "no"], ["fp32", "yes"], ["bf16", "no"], ["bf16", "yes"]]
    assert all(row[2:4] == ["6", "1"] for row in rows)
    assert lines[-1].startswith("--training.precision ")
    assert lines[-1].endswith(
        " --training.gradient_accumulation_steps 1 --training.gradient_checkpointing false"
    )


def test_if_nothing_fits_the_exit_code_is_1_and_the_table_is_printed(ramstrans_plan, options, monkeypatch):
    monkeypatch.setattr("ramstrans.training.plan.measure", lambda *_, **__: iter(()))
    code, out, err = ramstrans_plan(*options, "--memory", "0.1MB", *NUMBERS)
    assert code == 1
    assert out.count("does not fit") == 4
    [line] = [line for line in err.splitlines() if line.startswith("ramstrans: ")]
    assert line.startswith("ramstrans: not even one image at a time fits into 0.1 MB per process; give a ")


def test_images_and_classes_are_counted_in_the_data_set(work, options, birds):
    data = ("--data.name", "cub", "--data.root", birds, "--data.val_fraction", "0.25")
    config, num_images = work(*options, *data)
    assert (config.model.num_classes, num_images) == (3, 9)
    assert work(*options, *data, "--num_images", 1000)[1] == 1000


def test_toybirds_need_no_root(work, options, monkeypatch):
    from ramstrans.data import build
    from ramstrans.data.records import ImageSet, Record

    drawn = ImageSet(("a", "b"), tuple(Record("x.png", label, "train") for label in (0, 1, 1)))
    monkeypatch.setattr(build, "build_image_set", lambda *_: drawn)
    config, num_images = work(*options)
    assert (config.model.num_classes, num_images) == (2, 3)


def test_a_config_of_a_set_that_is_not_here_will_do(work, tmp_path):
    path = tmp_path / "cub.yaml"
    path.write_text(yaml.safe_dump({"data": {"name": "cub", "crop": 448}, "model": {"zoom_source": "full"}}))
    config, num_images = work("--config", path, "--num_images", 5994, "--model.num_classes", 200)
    assert (config.model.num_classes, num_images, config.data.crop) == (200, 5994, 448)
    assert config.model.zoom_source == "full"


def test_classes_of_a_data_set_are_its_own(work, options, birds):
    data = ("--data.name", "cub", "--data.root", birds)
    with pytest.raises(ConfigError, match="num_classes is 7; the data set has 3"):
        work(*options, *data, "--model.num_classes", 7)


@pytest.mark.parametrize("given", [[], ["--num_images", 5], ["--model.num_classes", 5]])
def test_without_data_both_numbers_are_needed(work, options, given):
    with pytest.raises(UsageError, match=r"give DATA, or --num_images and --model\.num_classes"):
        work(*options, "--data.name", "cub", *given)


def test_something_else_than_an_amount_of_memory_is_refused(ramstrans_plan, options):
    code, _, err = ramstrans_plan(*options, "--memory", "12", *NUMBERS)
    assert code == UsageError.exit_code
    assert "'12' is not an amount of memory; give e.g. 12GB" in err

"""`ramstrans plan`, from its arguments to its exit code."""

import sys

import pytest
import yaml

from ramstrans.cli import main
from ramstrans.commands.options import Parser
from ramstrans.commands.plan import add_options, workload
from ramstrans.commands.train import run_config
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
        options = parser.instantiate(parser.parse_args(list(map(str, arguments))))
        return workload(run_config(options), options, lambda *_: None)

    return work


@pytest.mark.slow
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
    assert (config.model.num_classes, num_images) == (3, {"train": 9, "val": 3, "test": 6})
    assert work(*options, *data, "--num_images", 1000)[1]["train"] == 1000


def test_toybirds_need_no_root(work, options, monkeypatch):
    from ramstrans.data import build
    from ramstrans.data.records import ImageSet, Record

    drawn = ImageSet(("a", "b"), tuple(Record("x.png", label, "train") for label in (0, 1, 1)))
    monkeypatch.setattr(build, "build_image_set", lambda *_: drawn)
    config, num_images = work(*options)
    assert (config.model.num_classes, num_images["train"]) == (2, 3)


def test_a_config_of_a_set_that_is_not_here_will_do(work, tmp_path):
    path = tmp_path / "cub.yaml"
    path.write_text(yaml.safe_dump({"data": {"name": "cub", "crop": 448}, "model": {"zoom_source": "full"}}))
    config, num_images = work("--config", path, "--num_images", 5994, "--model.num_classes", 200)
    assert (config.model.num_classes, num_images["train"], config.data.crop) == (200, 5994, 448)
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


@pytest.fixture
def wide(monkeypatch, ramstrans_plan):
    """The command in a terminal that is wide enough for every table."""
    monkeypatch.setenv("COLUMNS", "140")
    return ramstrans_plan


CHOOSE = ("--choose", "true", "--backbones", BACKBONE, "--image_sizes", "16", "32")


def test_choose_prints_a_ranking_and_options_of_train(ramstrans_plan, options):
    code, out, err = ramstrans_plan(*options, *CHOOSE, "--time", "1h", "--memory", "4GB", *NUMBERS)
    assert code == 0, err
    lines = out.splitlines()
    [start] = [number for number, line in enumerate(lines) if line.split()[:1] == ["backbone"]]
    rows = [line.split() for line in lines[start + 1 : start + 3]]
    assert [(row[0], row[1], row[2], row[-1]) for row in rows] == [
        ("1", BACKBONE, "32", "fits"),
        ("2", BACKBONE, "16", "fits"),
    ]
    assert "2 epochs of 100 images; 1 h 0 min; 4.0 GB per process; measured on cpu" in " ".join(out.split())
    assert lines[-1] == (
        f"--model.backbone {BACKBONE} --model.weights timm --model.image_size 32 "
        "--training.gradient_accumulation_steps 1 --training.gradient_checkpointing false"
    )


def test_what_is_too_slow_is_in_the_table(wide, options):
    code, out, err = wide(*options, *CHOOSE, "--time", "0.000001s", *NUMBERS)
    assert code == 1
    assert out.count("too slow") == 2
    assert out.count("too slow (estimated)") == 1
    assert "none of the 2 candidates fits into 0 s" in err


def test_lr_range_writes_a_plot(ramstrans_plan, options, colors, tmp_path):
    output = tmp_path / "curve.png"
    recipe = ("--training.lr", "0.02", "--training.optimizer", "adamw", "--data.val_fraction", 0)
    line = (*options, colors, "--lr_range", "true", *recipe, "--output", output)
    code, out, err = ramstrans_plan(*line)
    assert code == 0, err
    assert out.splitlines()[-1].startswith("--training.lr ")
    assert "the recipe has 0.02" in " ".join(out.split())
    assert 1e-6 < float(out.split()[-1]) < 1
    before = output.read_bytes()
    code, _, err = ramstrans_plan(*line)
    assert code == UsageError.exit_code
    assert f"--output {output} exists; give another, or --overwrite true" in " ".join(err.split())
    assert output.read_bytes() == before


def test_search_prints_a_table_and_the_options_of_the_best(wide, options, birds, tmp_path):
    pytest.importorskip("optuna")
    output = tmp_path / "search"
    data = ("--data.val_fraction", "0.25", "--data.root", birds)
    code, out, err = wide(*options, *data, "--search", 2, "--time", "1h", "--output", output)
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    assert ["trial", "lr", "weight", "decay", "layer", "decay", "drop", "path"] in [row[:8] for row in rows]
    assert sorted(row[0] for row in rows if row[:1] in (["1"], ["2"])) == ["1", "2"]
    assert "of 3 validation images right (95 % interval" in " ".join(out.split())
    assert out.splitlines()[-1].split()[::2] == [
        *("--training.lr", "--training.weight_decay", "--training.layer_decay", "--model.drop_path")
    ]
    assert {path.name for path in output.iterdir()} == {
        *("search.db", "search.png", "trial-000.jsonl", "trial-001.jsonl")
    }


def test_without_optuna_the_extra_is_named(ramstrans_plan, options, birds, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = ramstrans_plan(*options, birds, "--search", 2, "--output", tmp_path / "search")
    assert code == ConfigError.exit_code
    assert "--search needs optuna" in err
    assert "pip install 'ramstrans[search]'" in " ".join(err.split())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (CHOOSE, "--choose needs the time that the run may take; give e.g. --time 2h"),
        (("--choose", "true", "--search", 3), "--choose and --search are two plans; give one of them"),
        (("--time", "2h"), "--time has no effect without --choose or --search; leave it out"),
        (("--backbones", BACKBONE), "--backbones has no effect without --choose; leave it out"),
        (("--lr_range", "true", "--memory", "1GB"), "--memory has no effect with --lr_range; leave it out"),
        (("--search", 3, "--processes", 2), "--processes has no effect with --search; leave it out"),
        (
            (*CHOOSE, "--time", "2h", "--output", "a.png"),
            "--output has no effect with --choose; leave it out",
        ),
        ((*CHOOSE, "--time", "2"), "'2' is not a length of time; give e.g. 2h, 90min, 1h30m or 3d"),
        (("--lr_range", "true", "--output", "curve.pdf"), "--output curve.pdf must end in .png; rename it"),
        (
            ("--lr_range", "true", "--training.finetune", "head"),
            "a linear probe has no recipe to be found by --lr_range; leave out --training.finetune head",
        ),
        (("--training.finetune", "head"), "a linear probe takes none: it computes features once"),
        (
            ("--search", 3, "--training.fsdp", "true"),
            "--search runs in one process; leave out --training.fsdp",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(ramstrans_plan, options, given, message):
    code, _, err = ramstrans_plan(*options, *given)
    assert code == UsageError.exit_code
    assert message in " ".join(err.split())

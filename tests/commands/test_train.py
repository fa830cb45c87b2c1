"""`ramstrans train`: the main path in a real process, the rest through `main`, which is the same."""

import json

import pytest
import torch
import yaml

from ramstrans.cli import main
from ramstrans.saved.model import load_state
from tests.processes import ENVIRONMENT, python
from tests.tiny import TINY


@pytest.mark.slow
def test_train_in_a_process_of_its_own(tiny, tmp_path):
    """The installed package, not the one beside the tests."""
    installed = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONPATH"}
    options = ("--config", tiny, "--output", "run", "--seed", 3)
    done = python("-m", "ramstrans", "train", *options, env=installed, cwd=tmp_path)
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


def test_dry_run_writes_nothing(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", str(tiny), "--output", "run", "--dry_run", "true"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "nothing was trained; a run would be written to run" in printed.err
    assert not list(tmp_path.iterdir())


def test_options_without_effect_in_a_linear_probe_are_told(tiny, capsys):
    given = ["--training.epochs", "1", "--training.lr=0.1", "--training.max_steps", "null"]
    line = ["train", "--config", str(tiny), "--dry_run", "true", *given]
    assert main(line) == 0
    assert "ignored: " not in capsys.readouterr().err
    assert main([*line, "--training.finetune", "head"]) == 0
    assert (
        "ignored: --training.epochs, --training.lr; a linear probe takes no steps" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model.backbone", "vit_tinny_patch16_224"], "did you mean vit_tiny"),
        (["--model.backbone", "resnet18"], "cannot build 'resnet18' with"),
        (["--model.image_size", "7"], "smaller than a patch"),
        (["--model.image_size", "33"], "not a multiple of the patch"),
        (["--data.crop", "64", "--data.resize", "48"], "resize is 48, too small for the crop of (64, 64)"),
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
        (empty_class, "has no images"),
    ],
    ids=["missing", "empty", "one class", "empty class"],
)
def test_photographs_that_cannot_be_used(make, said, tmp_path, fails):
    root = tmp_path / "photographs"
    make(root)
    for command in ("train", "data check"):
        assert said in fails(3, *command.split(), "--data.name", "folder", "--data.root", root)


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
    assert main(["train", "--config", str(tiny), *data, "--dry_run", "true"]) == 0
    printed = capsys.readouterr()
    assert f"left out: {broken}" in printed.err
    assert "5 test images" in printed.err
    assert printed.out == ""


def test_weights_without_a_network_are_told(tiny, tmp_path, monkeypatch, fails):
    import timm

    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("Network is unreachable")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr("ramstrans.models.pretrained.why_unreachable", lambda: None)
    arguments = ["--model.weights", "timm", "--output", tmp_path / "run"]
    line = fails(1, "train", "--config", tiny, *arguments)
    assert "Network is unreachable" in line
    assert "--model.weights FILE.safetensors" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("code", "options", "said"),
    [
        (2, ["--model.backbone", "vit_tinny_patch16_224"], "did you mean vit_tiny"),
        (2, ["--model.image_size", "33"], "not a multiple of the patch"),
        (1, ["--model.weights", "nowhere.pth"], "nowhere.pth does not exist"),
        (1, ["--model.weights", "."], "has no model.safetensors"),
        (2, ["--training.keep_checkpoints", "1000000000"], "weights and checkpoints take"),
    ],
)
def test_model_weights_and_disk_are_checked_before_images_are_read(
    code, options, said, tiny, tmp_path, monkeypatch, fails
):
    def read(*_, **__):
        raise AssertionError("images were read")

    monkeypatch.setattr("ramstrans.training.run.drop_unreadable", read)
    if code == 1 or "backbone" in options[0]:
        monkeypatch.setattr("ramstrans.training.run.build_image_set", read)
    monkeypatch.chdir(tmp_path)
    assert said in fails(code, "train", "--config", tiny, "--output", "run", *options)
    assert not (tmp_path / "run").exists()


def test_training_starts_from_a_run_of_ones_own(trained, tiny, colors, tmp_path, capsys):
    """Other classes: everything but the head; the plan of the run is printed."""
    words = ["train", colors, "--data.name", "folder", "--config", tiny]
    words += ["--model.weights", trained.folder, "--dry_run", "true"]
    assert main([str(word) for word in words]) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert f"weights from {trained.folder}: head rows of 0 of 3 classes kept by name, 3 start new" in printed
    assert "2 steps, about" in printed
    assert "the epoch to keep is chosen on 3 validation images; the test split (6 images)" in printed


def test_a_former_name_of_a_backbone_is_resolved(tiny, capsys):
    former = ["--model.backbone", "vit_tiny_patch16_224_in21k", "--dry_run", "true"]
    assert main(["train", "--config", str(tiny), *former]) == 0
    assert "vit_tiny_patch16_224_in21k is vit_tiny_patch16_224.augreg_in21k now" in capsys.readouterr().err

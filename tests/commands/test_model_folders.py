"""What commands that take a saved model have in common: broken folders, precision."""

import json
import shutil

import pytest

from ramstrans.cli import main
from ramstrans.evaluation import predict as module


@pytest.fixture
def model_folder(trained, tmp_path):
    """A copy of the trained model's two files."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copy(trained.folder / name, folder)
    return folder


@pytest.mark.parametrize("command", ["evaluate", "predict", "explain"])
def test_a_truncated_model_is_an_error(command, model_folder, colors, tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    weights = model_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    image = [] if command == "evaluate" else [colors / "test" / "Azure_tit" / "0.png"]
    line = fails(1, command, model_folder, *image, "--device", "cpu")
    assert "model.safetensors is truncated" in line
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
    assert len(list(model_folder.iterdir())) == 2


def test_a_model_of_a_newer_version_is_an_error(model_folder, fails):
    path = model_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    assert "upgrade with pip" in fails(2, "predict", model_folder, "bird.jpg")


@pytest.mark.parametrize("command", ["evaluate", "predict", "explain"])
def test_a_missing_run_is_an_error(command, tmp_path, fails):
    image = [] if command == "evaluate" else ["bird.jpg"]
    assert "nowhere is not a folder" in fails(1, command, tmp_path / "nowhere", *image)


def set_metadata(folder, change):
    """Change the values of a folder's config.json."""
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (folder / "config.json").write_text(json.dumps(values))


@pytest.fixture
def arguments_of(model_folder, birds, tmp_path, monkeypatch, no_pictures):
    """The arguments of each command, for one image or the test split."""
    monkeypatch.chdir(tmp_path)
    image = sorted(birds.glob("images/*/*.jpg"))[0]

    def arguments_of(command):
        inputs = [] if command == "evaluate" else [str(image)]
        inputs += ["--overwrite", "true"] if command == "explain" else []
        return [command, str(model_folder), *inputs, "--device", "cpu"]

    return arguments_of


@pytest.mark.usefixtures("bf16_units")
@pytest.mark.parametrize("command", ["evaluate", "predict", "explain"])
def test_the_default_precision_is_that_of_the_training_run(command, model_folder, arguments_of, monkeypatch):
    def train_in_bf16(values):
        values["training"]["run"]["training"]["precision"] = "bf16"

    set_metadata(model_folder, train_in_bf16)
    used, autocast = [], module.autocast

    def recorded(device, precision):
        used.append(precision)
        return autocast(device, precision)

    for name in ("evaluation.predict", "evaluation.views", "inference.predictor"):
        monkeypatch.setattr(f"ramstrans.{name}.autocast", recorded)
    assert main(arguments_of(command)) == 0
    assert set(used) == {"bf16"}
    used.clear()
    assert main([*arguments_of(command), "--precision", "fp32", "--overwrite", "true"]) == 0
    assert set(used) == {"fp32"}


@pytest.mark.parametrize("command", ["evaluate", "predict", "explain"])
def test_fp16_is_refused_on_a_cpu(command, arguments_of, fails):
    assert "fp16 needs a GPU" in fails(2, *arguments_of(command), "--precision", "fp16")


@pytest.mark.parametrize("command", ["evaluate", "predict", "explain"])
def test_a_model_saved_without_its_number_of_classes(command, model_folder, arguments_of):
    def forget(values):
        values["model"]["num_classes"] = None

    set_metadata(model_folder, forget)
    assert main(arguments_of(command)) == 0

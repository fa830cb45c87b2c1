import json

import pytest
from huggingface_hub import constants

from ramstrans import hub as hub_client
from ramstrans.cli import main
from ramstrans.errors import UsageError, WeightsError
from ramstrans.hub import FILES, is_address, local_folder
from ramstrans.inference.predictor import Predictor
from ramstrans.saved.metadata import CONFIG_FILE, WEIGHTS_FILE, load_metadata, saved_folder
from tests.hub_stub import READER
from tests.inference.builders import NAMES, draw, make_folder


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def model_files(tmp_path_factory):
    return files_of(make_folder(tmp_path_factory.mktemp("model")))


@pytest.fixture
def again():
    """Call it to be another process, which asks the hub again."""
    return hub_client._downloaded.cache_clear


def test_the_files_are_those_of_a_saved_model():
    assert FILES[:2] == (CONFIG_FILE, WEIGHTS_FILE)


@pytest.mark.parametrize(
    "name", ["hf://ann", "hf://ann/wrens/more", "hf://ann/wrens@", "hf://", "hf://a b/c"]
)
def test_what_is_no_repository_is_a_usage_error(name):
    assert is_address(name)
    with pytest.raises(UsageError, match=f"^{name} is not a repository of the hub; give user/name"):
        local_folder(name)


def test_a_folder_is_itself(tmp_path):
    assert local_folder(tmp_path) == tmp_path
    assert local_folder("runs/hf") == hub_client.Path("runs/hf")


def test_a_model_of_the_hub_predicts_what_the_folder_predicts(hub, tmp_path, model_files):
    hub.add("ann/wrens", model_files | {"README.md": b"# wrens", "training.log": b"not needed"})
    here, photograph = make_folder(tmp_path / "run"), draw(tmp_path / "a.png", 97, 71)
    expected = Predictor.load(here, "cpu")(photograph)
    assert Predictor.load("hf://ann/wrens", "cpu")(photograph) == expected
    assert Predictor.load(hub_client.Path("hf://ann/wrens"), "cpu")(photograph) == expected  # hf:/ann/wrens
    assert load_metadata("hf://ann/wrens").class_names == NAMES
    copy = saved_folder("hf://ann/wrens")
    assert {path.name for path in copy.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE}
    asked = [path for _, path in hub.requests if "revision" in path]
    assert asked == ["/api/models/ann/wrens/revision/main"]  # once, so that all files are of one commit


def test_a_revision_is_taken(hub, model_files, tmp_path):
    first = hub.add("ann/wrens", model_files)
    other = make_folder(tmp_path / "other", names=("Wren", "Kite"))
    hub.add("ann/wrens", files_of(other))
    assert load_metadata("hf://ann/wrens").class_names == ("Wren", "Kite")
    assert load_metadata(f"hf://ann/wrens@{first}").class_names == NAMES
    with pytest.raises(
        WeightsError, match=r"^hf://ann/wrens@v9: it has no revision v9; give a branch, tag or"
    ):
        load_metadata("hf://ann/wrens@v9")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("HF_HUB_OFFLINE", True, r" reached \(HF_HUB_OFFLINE is set\)$"),
        ("ENDPOINT", "http://127.0.0.1:9", ""),  # the discard port: nobody listens
    ],
)
def test_the_cache_is_taken_without_a_network(hub, model_files, monkeypatch, again, name, value, why):
    hub.add("ann/wrens", model_files)
    folder = local_folder("hf://ann/wrens")
    again()
    monkeypatch.setattr(constants, name, value)
    hub.requests.clear()
    assert local_folder("hf://ann/wrens") == folder
    with pytest.raises(
        WeightsError, match=rf"^hf://ann/owls: it is not in the hub's cache, and the hub cannot be{why}"
    ):
        local_folder("hf://ann/owls")
    assert hub.requests == []


def test_a_copy_that_is_not_whole_is_not_taken_offline(hub, model_files, monkeypatch, again):
    hub.add("ann/wrens", model_files)
    folder = local_folder("hf://ann/wrens")
    (folder / WEIGHTS_FILE).unlink()
    again()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="it is not in the hub's cache"):
        local_folder("hf://ann/wrens")


def test_no_such_repository_and_no_right_are_one_line(hub, model_files, monkeypatch, fails, again):
    hub.add("ann/secret", model_files, private=True)
    assert local_folder("hf://ann/secret").is_dir()
    again()
    missing = "no such repository, or a private one of others; see its name, and `hf auth whoami`"
    assert fails(1, "predict", "hf://ann/nothing", "a.jpg") == f"ramstrans: hf://ann/nothing: {missing}"
    monkeypatch.setenv("HF_TOKEN", READER)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE + "-of-another")
    assert fails(1, "predict", "hf://ann/secret", "a.jpg") == f"ramstrans: hf://ann/secret: {missing}"
    hub.status = 403
    assert "your token has no right to do that" in fails(1, "explain", "hf://ann/secret", "a.jpg")
    hub.status = 500
    assert "the hub did not answer; try again" in fails(1, "evaluate", "hf://ann/secret")


@pytest.mark.parametrize(
    ("content", "what"),
    [({}, "missing"), ({"config.json": b'{"model_type": "vit"}'}, "of another library")],
)
def test_a_model_of_others_is_not_downloaded(hub, content, what):
    hub.add("ann/bert", content | {"model.safetensors": b"a" * 1000})
    with pytest.raises(
        WeightsError, match=rf"^hf://ann/bert has no model of ramstrans: its config.json is {what}"
    ):
        local_folder("hf://ann/bert")
    assert not [path for _, path in hub.requests if path.endswith(WEIGHTS_FILE)]


def test_every_command_takes_one(hub, trained, colors, tmp_path, monkeypatch, capsys, config_of, no_pictures):
    hub.add("ann/birds", files_of(trained.folder))
    monkeypatch.chdir(tmp_path)
    run, device = "hf://ann/birds", ["--device", "cpu"]
    photograph = str(next(colors.rglob("0.png")))
    assert main(["predict", run, photograph, "--output", "a.csv", *device]) == 0
    assert main(["predict", str(trained.folder), photograph, "--output", "b.csv", *device]) == 0
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    assert main(["explain", run, photograph, *device]) == 0
    assert (
        main(["bench", "--models", run, str(trained.folder), "--repeats", "1", "--output", "b", *device]) == 0
    )
    rows = json.loads((tmp_path / "b" / "bench.json").read_text())["models"]
    assert rows[0]["name"] == run
    assert rows[0]["top1"] == rows[1]["top1"] == trained.report["fused"]["top1"]
    assert main(["evaluate", run, *device]) == 0
    evaluated = json.loads((tmp_path / "birds" / "evaluation-test" / "report.json").read_text())
    assert evaluated["fused"] == trained.report["fused"]
    capsys.readouterr()
    assert main(["evaluate", run, "--early_exit", "auto", *device]) == 2
    assert "saves the confidence in RUN, which is on the hub" in capsys.readouterr().err
    config = config_of(colors, "--model.weights", run, "--output", tmp_path / "run")
    assert (config.model.weights, config.model.backbone) == (run, trained.prepared.config.model.backbone)


def test_training_starts_from_one(hub, trained, colors, tmp_path, monkeypatch, no_pictures, caplog):
    hub.add("ann/birds", files_of(trained.folder))
    arguments = [
        "--model.weights",
        "hf://ann/birds",
        "--training.max_steps",
        "1",
        "--training.batch_size",
        "4",
    ]
    caplog.set_level("INFO")
    assert main(["train", str(colors), *arguments, "--output", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert load_metadata(tmp_path / "run").run_options("model")["weights"] == "hf://ann/birds"
    assert "head rows of 0 of 3 classes kept by name" in caplog.text

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

import ramstrans
from ramstrans.cli import main
from ramstrans.errors import UsageError, WeightsError
from ramstrans.evaluation.report.markdown import LABEL_METRICS
from ramstrans.hub import Address
from ramstrans.inference.predictor import Predictor
from ramstrans.saved.metadata import load_metadata
from ramstrans.sharing.card import model_card
from ramstrans.sharing.push import nameless, prepare_push
from tests.hub_stub import READER
from tests.inference.builders import draw, make_folder

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own


def content_of(hub, name, branch="main"):
    repository = hub.repositories[name]
    return repository.commits[repository.branches[branch]]


def test_a_run_is_pushed_and_read_again(hub, trained, tmp_path, capsys):
    assert (
        main(["push", str(trained.folder), "ann/birds", "--private", "true", "--message", "First birds"]) == 0
    )
    repository, files = hub.repositories["ann/birds"], content_of(hub, "ann/birds")
    assert repository.private
    assert repository.messages == ["First birds"]
    assert files.keys() == {"README.md", "config.json", "model.safetensors", "report.json", "confusion.png"}
    printed = capsys.readouterr().err
    assert all(f"  {name}: " in printed for name in files)
    assert "pushed: http" in printed
    photograph = draw(tmp_path / "a.png", 97, 71)
    expected = Predictor.load(trained.folder, "cpu")(photograph)
    assert Predictor.load("hf://ann/birds", "cpu")(photograph) == expected


def test_a_calibration_of_before_is_removed(hub, trained, tmp_path):
    """It belongs to other weights: with it, nobody could load the model from the hub."""
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    old = {"calibration.json": b"{}", "calibration.safetensors": b"0", "notes.md": b"mine"}
    hub.add("ann/birds", old)
    main(["push", str(folder), "ann/birds"])
    files = content_of(hub, "ann/birds")
    assert "notes.md" in files
    assert not {"calibration.json", "calibration.safetensors"} & files.keys()
    assert Predictor.load("hf://ann/birds", "cpu")(draw(tmp_path / "a.png", 97, 71)).labels


def test_a_calibration_tells_nothing_of_this_machine(trained, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    (folder / "calibration.json").write_text(json.dumps({"fitted_on": "/home/ann/more birds"}))
    files = prepare_push(folder, "ann/birds").files
    assert json.loads(files["calibration.json"]) == {"fitted_on": "more birds"}
    (folder / "calibration.json").write_text("{")
    with pytest.raises(WeightsError, match=r"damaged .*ramstrans calibrate"):
        prepare_push(folder, "ann/birds")


def test_a_card_of_several_labels(trained, tmp_path):
    metadata = load_metadata(trained.folder)
    metadata = replace(metadata, model=replace(metadata.model, multi_label=True))
    interval = {f"{key}_interval": [10.0, 20.0] for key in ("map", *(name for name, _ in LABEL_METRICS))}
    fused = {"map": 50.0, **{name: 40.0 for name, _ in LABEL_METRICS}, **interval}
    report = {
        **{"multi_label": "chosen", "num_images": 7, "split": "test", "warnings": ["few images"]},
        **{"scales": [{"map": 45.0, "map_interval": [1.0, 2.0]}] * 2, "fused": fused, "classes": []},
    }
    card = model_card(metadata, report, Address("ann/birds"))
    _, header, page = card.split("---\n", 2)
    (result,) = yaml.safe_load(header)["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "mAP", "value": 0.5, "name": "mean average precision"}]
    assert "| mAP, fused: mean of all | 50.0 | 10.0 - 20.0 |" in page
    assert "- few images." in page
    assert "calibration error" not in page


def test_the_card_of_a_calibrated_model_has_the_error_that_is_left(trained):
    report = json.loads((trained.folder / "report.json").read_text())
    report["calibration"] = {"fused": {"before": {"ece": 9.0}, "after": {"ece": 1.25}}}
    page = model_card(load_metadata(trained.folder), report | {"unknown": {"auroc": 1}}, Address("ann/birds"))
    assert "off by 1.2 percentage points" in page
    assert "may or may not be called unknown" in page


def test_nothing_tells_of_this_machine(hub, trained):
    """Folders of the data, of weights and of the run stand in config.json, report.json and run.yaml."""
    folder = str(trained.folder)
    here = [str(trained.prepared.config.data.root), folder, str(Path(folder).parent)]
    assert any(here[0] in (trained.folder / name).read_text() for name in ("config.json", "report.json"))
    main(["push", folder, "ann/birds"])
    for name in ("README.md", "config.json", "report.json"):
        text = content_of(hub, "ann/birds")[name].decode()
        assert not [path for path in here if path in text], name
    assert (
        json.loads(content_of(hub, "ann/birds")["config.json"])["training"]["run"]["data"]["root"] == "birds"
    )


@pytest.mark.parametrize(
    ("value", "shared"),
    [
        ("/home/ann/my birds", "my birds"),
        (r"C:\Users\ann\birds", "birds"),
        ("'/home/ann/a b.jpg': empty", "'a b.jpg': empty"),
        ("photos/a.jpg", "photos/a.jpg"),
        ("timm", "timm"),
        ("https://birds.org/a", "https://birds.org/a"),
        ([{"a": "/x/y"}], [{"a": "y"}]),
        (0.5, 0.5),
    ],
)
def test_paths_lose_their_folders(value, shared):
    assert nameless(value) == shared


def test_the_card_has_figures_data_recipe_and_limits(trained):
    card = prepare_push(trained.folder, "ann/birds", licence="cc-by-nc-4.0").card
    _, header, page = card.split("---\n", 2)
    header = yaml.safe_load(header)
    assert (header["license"], header["library_name"]) == ("cc-by-nc-4.0", "ramstrans")
    (result,) = header["model-index"][0]["results"]
    top1, interval = trained.report["fused"]["top1"], trained.report["fused"]["top1_interval"]
    assert result["metrics"] == [
        {"type": "accuracy", "value": round(top1 / 100, 4), "name": "top-1 accuracy"}
    ]
    assert result["dataset"] == {"name": "CUB-200-2011", "type": "cub", "split": "test"}
    assert f"| {top1:.1f} | {interval[0]:.1f} - {interval[1]:.1f} |" in page
    for part in ("6 images of the test split", "| training.lr | 0.003 |", "It knows these 3 classes alone"):
        assert part in page, part
    assert 'Predictor.load("hf://ann/birds")' in page
    assert "](confusion.png)" in page


def test_weights_of_the_hub_are_the_base_model(trained, tmp_path):
    """Names on the hub stay as they are, timm's are looked up."""
    for weights, base in (
        ("timm", "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
        ("hf://bo/jays@v2", "bo/jays"),
    ):
        for name in ("config.json", "model.safetensors"):
            (tmp_path / name).write_bytes((trained.folder / name).read_bytes())
        config = json.loads((tmp_path / "config.json").read_text())
        config["training"]["run"]["model"]["weights"] = weights
        (tmp_path / "config.json").write_text(json.dumps(config))
        header = yaml.safe_load(prepare_push(tmp_path, "ann/birds").card.split("---\n")[1])
        assert header["base_model"] == base


def test_a_model_without_a_report_says_so(tmp_path):
    prepared = prepare_push(make_folder(tmp_path), "ann/crows")
    assert set(prepared.files) == {"README.md", "config.json", "model.safetensors"}
    assert "nothing is known of its accuracy" in prepared.card
    assert "model-index" not in prepared.card
    assert "Müller's Wren" in prepared.card


def test_a_dry_run_pushes_nothing_and_an_edited_card_is_taken(hub, tmp_path, capsys):
    folder = make_folder(tmp_path / "run")
    assert main(["push", str(folder), "ann/crows", "--dry_run", "true"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("---\n")
    assert hub.requests == []
    (folder / "README.md").write_text(printed + "\nOnly crows of one park.\n")
    assert main(["push", str(folder), "ann/crows"]) == 0
    assert content_of(hub, "ann/crows")["README.md"].decode().endswith("Only crows of one park.\n")


def test_a_branch_and_a_picture(hub, tmp_path):
    folder = make_folder(tmp_path / "run")
    Image.new("RGB", (8, 8)).save(tmp_path / "mine.png")
    url = ramstrans.push(folder, "ann/crows@v2", picture=tmp_path / "mine.png")
    assert url.startswith(f"{hub.address}/ann/crows/commit/")
    assert "mine.png" in content_of(hub, "ann/crows", "v2")
    assert content_of(hub, "ann/crows") == {}
    with pytest.raises(UsageError, match=r"--picture .*nothing.png does not exist; give another"):
        prepare_push(folder, "ann/crows", picture=tmp_path / "nothing.png")


def test_pushing_again_is_another_commit(hub, tmp_path):
    ramstrans.push(make_folder(tmp_path / "run"), "ann/crows")
    ramstrans.push(make_folder(tmp_path / "other", names=("Wren", "Kite")), "ann/crows", message="wrens")
    assert hub.repositories["ann/crows"].messages == ["Model of ramstrans", "wrens"]
    assert json.loads(content_of(hub, "ann/crows")["config.json"])["class_names"] == ["Wren", "Kite"]


def test_what_cannot_be_pushed_is_one_line(hub, tmp_path, monkeypatch, fails):
    folder = make_folder(tmp_path / "run")
    assert "crows is not a repository of the hub; give user/name" in fails(2, "push", folder, "crows")
    assert "is not a folder" in fails(1, "push", tmp_path / "none", "ann/crows")
    assert "hf://ann/crows is on the hub already" in fails(2, "push", "hf://ann/crows", "ann/copy")
    monkeypatch.setenv("HF_TOKEN", READER)
    assert "your token has no right to do that" in fails(1, "push", folder, "ann/crows")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    line = fails(1, "push", folder, "ann/crows")
    assert "nothing was pushed, the hub cannot be reached (HF_HUB_OFFLINE is set)" in line
    assert hub.repositories == {}


def test_a_damaged_report_is_one_line(tmp_path):
    folder = make_folder(tmp_path)
    (folder / "report.json").write_text("{")
    with pytest.raises(WeightsError, match=r"report.json is damaged .* `ramstrans evaluate"):
        prepare_push(folder, "ann/crows")

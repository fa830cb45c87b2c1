import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import ConfigError, OutputError, WeightsError
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.early_exit import EarlyExit
from ramstrans.saved import model as module
from ramstrans.saved.model import (
    ModelMetadata,
    load_into,
    load_metadata,
    load_state,
    metadata_from_json,
    metadata_to_json,
    save_metadata,
    save_model,
)

CARD = ModelMetadata(
    ModelConfig(
        num_classes=2, image_size=(32, 48), weights="/home/someone/secret.pth", thresholds=(1.2, 1.3)
    ),
    ("crow", "Mönchsgrasmücke"),
    Preprocessing(64, (48, 48)),
    {"epochs": 3, "top1": 71.3},
)
STATE = {"a.weight": torch.randn(3, 5), "b": torch.arange(7)}

sides = st.integers(1, 2000)
finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=7,
)


@st.composite
def cards(draw):
    names = draw(st.lists(st.text(), min_size=2, max_size=7, unique=True))
    num_scales = draw(st.integers(1, 3))
    model = ModelConfig(
        backbone=draw(st.text()),
        num_classes=draw(st.sampled_from([None, len(names)])),
        image_size=draw(sides | st.tuples(sides, sides)),
        num_scales=num_scales,
        weights=draw(st.none() | st.text() | st.just(Path("some") / "where.npz")),
        class_tokens=draw(st.sampled_from(["joint", "separate"])),
        thresholds=draw(st.none() | st.tuples(*[finite] * num_scales)),
        zoom_margin=draw(st.floats(0, 7)),
        patch_stride=draw(st.none() | sides),
        backbone_options=draw(st.dictionaries(st.text(), plain, max_size=3)),
        drop_path=draw(st.floats(0, 0.99)),
    )
    crop = draw(st.tuples(sides, sides))
    preprocessing = Preprocessing(
        draw(st.sampled_from([max(crop), (crop[0] + 3, crop[1])])),
        crop,
        draw(st.tuples(finite, finite, finite)),
        draw(st.tuples(*[st.floats(1e-3, 1e3)] * 3)),
    )
    return ModelMetadata(
        model, tuple(names), preprocessing, draw(st.dictionaries(st.text(), plain, max_size=3))
    )


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(cards())
def test_card_comes_back_as_it_was_but_for_the_first_weights(metadata):
    text = metadata_to_json(metadata).encode(errors="backslashreplace").decode()
    expected = dataclasses.replace(metadata, model=dataclasses.replace(metadata.model, weights=None))
    back = metadata_from_json(text)
    assert back == expected
    assert list(map(type, dataclasses.astuple(back.model))) == list(
        map(type, dataclasses.astuple(expected.model))
    )


def test_folder_comes_back(tmp_path):
    folder = tmp_path / "runs" / "one"
    save_model(folder, STATE, CARD)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert load_metadata(folder).class_names == CARD.class_names
    state = load_state(folder)
    assert set(state) == set(STATE)
    assert all(torch.equal(state[key], STATE[key]) for key in STATE)
    text = (folder / "config.json").read_text(encoding="utf-8")
    assert "secret" not in text
    assert "Mönchsgrasmücke" in text


def test_views_and_shared_tensors_are_saved(tmp_path):
    whole = torch.randn(4, 3)
    save_model(tmp_path, {"a": whole.T, "b": whole[1:], "c": whole[:1].expand(5, 3)}, CARD)
    state = load_state(tmp_path)
    assert torch.equal(state["a"], whole.T)
    assert torch.equal(state["c"], whole[:1].expand(5, 3))


def test_undecodable_class_name_comes_back(tmp_path):
    name = os.fsdecode(b"cr\xffow")
    save_model(tmp_path, STATE, dataclasses.replace(CARD, class_names=("a", name)))
    assert load_metadata(tmp_path).class_names == ("a", name)


def test_paths_and_numbers_without_a_value_in_the_summary():
    metadata = dataclasses.replace(CARD, training={"root": Path("x"), "loss": float("nan"), "best": (1, 2)})
    assert metadata_from_json(metadata_to_json(metadata)).training == {
        "root": "x",
        "loss": None,
        "best": [1, 2],
    }


def test_values_that_json_cannot_hold_are_named():
    metadata = dataclasses.replace(CARD, training={"net": {"module": nn.Identity()}})
    with pytest.raises(ConfigError, match=r"training\.net\.module is a Identity"):
        metadata_to_json(metadata)


@pytest.mark.parametrize(
    ("class_names", "message"), [(("a", "a"), "twice"), (("a", "b", "c"), "3 names; num_classes is 2")]
)
def test_card_checks_its_names(class_names, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CARD, class_names=class_names)


def edited(**changes):
    values = json.loads(metadata_to_json(CARD))
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = values
        for parent in parents:
            place = place[parent]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", r"card is \[\], not ModelMetadata"),
        ("{}", "card lacks model, class_names"),
        (edited(format_version=4), "written by a newer ramstrans .*: upgrade"),
        (edited(model__backbone=...), "model lacks backbone"),
        (edited(model__colour="red"), "card.model has unknown colour"),
        (edited(model__num_scales="two"), "model.num_scales is 'two', not int"),
        (edited(model__num_scales=True), "model.num_scales is True, not int"),
        (edited(model__num_scales=3), "model.thresholds has 2 values"),
        (edited(model__image_size=[1, 2, 3]), r"model.image_size is \[1, 2, 3\], not int \| tuple"),
        (edited(model__class_tokens="none"), "model.class_tokens is 'none', not .*joint"),
        (edited(class_names="crow"), "class_names is 'crow', not tuple"),
        (edited(preprocessing__std=[1, 1]), "preprocessing.std is"),
        (edited(preprocessing__std=[1, 1, 0]), "std is .*above 0"),
        (edited(training=None), "training is None, not dict"),
    ],
)
def test_damaged_cards_are_config_errors_of_one_line(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_metadata(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_card_of_version_1_lacks_what_came_later(tmp_path):
    (tmp_path / "config.json").write_text(edited(format_version=1, early_exit=..., model__region_size=...))
    metadata = load_metadata(tmp_path)
    assert (metadata.format_version, metadata.early_exit, metadata.model.region_size) == (3, None, None)
    save_metadata(tmp_path, dataclasses.replace(metadata, early_exit=EarlyExit(0.75, "val", 7, -0.5, 1.25)))
    assert load_metadata(tmp_path).early_exit == EarlyExit(0.75, "val", 7, -0.5, 1.25)


def test_card_that_is_no_text_is_a_config_error(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="decode"):
        load_metadata(tmp_path)


@pytest.mark.parametrize("load", [load_metadata, load_state])
def test_missing_folder_and_missing_file(tmp_path, load):
    with pytest.raises(WeightsError, match="nowhere is no folder; give the run folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match=r"has no (config.json|model.safetensors); a model folder has"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_weights_are_to_be_copied_again(tmp_path, keep):
    save_model(tmp_path, STATE, CARD)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="copy it again"):
        load_state(tmp_path)


def test_foreign_weights_are_to_be_copied_again(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"<html>not found</html>" * 99)
    with pytest.raises(WeightsError, match="copy it again"):
        load_state(tmp_path)


def test_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    save_model(tmp_path, STATE, CARD)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OutputError, match="cannot be written: No space left"):
        save_model(tmp_path, {"a": torch.zeros(2)}, CARD)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_folder_that_is_a_file_is_an_output_error(tmp_path):
    (tmp_path / "run").touch()
    for folder in (tmp_path / "run", tmp_path / "run" / "inner"):
        with pytest.raises(OutputError, match="cannot be written"):
            save_model(folder, STATE, CARD)


def test_load_into_fills_exactly(tmp_path):
    torch.manual_seed(0)
    donor, model = nn.Linear(5, 3), nn.Linear(5, 3)
    load_into(model, donor.state_dict())
    assert torch.equal(model.weight, donor.weight)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(3, 5)}, r"bias \(3,\) is missing"),
        (
            {"weight": torch.zeros(2, 5), "bias": torch.zeros(3)},
            r"weight is \(2, 5\), not the \(3, 5\) of the model",
        ),
        (
            {"weight": torch.zeros(3, 5), "bias": torch.zeros(3), "x": torch.zeros(1)},
            r"x \(1,\) is not in the model",
        ),
    ],
)
def test_load_into_names_what_does_not_fit(state, message):
    with pytest.raises(WeightsError, match=message):
        load_into(nn.Linear(5, 3), state)

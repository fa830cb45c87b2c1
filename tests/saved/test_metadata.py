import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import ConfigError
from ramstrans.models.config import ModelConfig
from ramstrans.saved.metadata import EarlyExit, ModelMetadata, metadata_from_json, metadata_to_json

METADATA = ModelMetadata(
    ModelConfig(
        num_classes=2, image_size=(32, 48), weights="/home/someone/secret.pth", thresholds=(1.2, 1.3)
    ),
    ("crow", "Mönchsgrasmücke"),
    Preprocessing(64, (48, 48)),
    {"epochs": 3, "top1": 71.3, "run": {"data": {"max_pixels": 7}}},
)

sides = st.integers(1, 2000)
finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=7,
)


@st.composite
def all_metadata(draw):
    names = draw(st.lists(st.text(), min_size=2, max_size=7, unique=True))
    num_scales = draw(st.integers(1, 3))
    model = ModelConfig(
        backbone=draw(st.text()),
        num_classes=draw(st.sampled_from([None, len(names)])),
        image_size=draw(sides | st.tuples(sides, sides)),
        num_scales=num_scales,
        weights=draw(st.none() | st.text() | st.just(Path("some") / "where.npz")),
        class_tokens=draw(st.sampled_from(["joint", "separate"])),
        thresholds=draw(st.none() | st.tuples(*[st.floats(1e-3, 1e3)] * num_scales)),
        zoom_margin=draw(st.floats(0, 7)),
        patch_stride=draw(st.none() | sides),
        backbone_options=draw(st.dictionaries(st.text(), plain, max_size=3)),
        drop_path=draw(st.floats(0, 0.99)),
        mean=draw(st.none() | st.tuples(finite, finite, finite)),
        std=draw(st.none() | st.tuples(*[st.floats(1e-3, 1e3)] * 3)),
    )
    crop = draw(st.tuples(sides, sides))
    preprocessing = Preprocessing(
        draw(st.sampled_from([max(crop), (crop[0] + 3, crop[1])])),
        crop,
    )
    return ModelMetadata(
        model, tuple(names), preprocessing, draw(st.dictionaries(st.text(), plain, max_size=3))
    )


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(all_metadata())
def test_json_round_trip_changes_only_weights_and_num_classes(metadata):
    text = metadata_to_json(metadata).encode(errors="backslashreplace").decode()
    model = dataclasses.replace(metadata.model, weights=None, num_classes=len(metadata.class_names))
    expected = dataclasses.replace(metadata, model=model)
    back = metadata_from_json(text)
    assert back == expected
    assert list(map(type, dataclasses.astuple(back.model))) == list(
        map(type, dataclasses.astuple(expected.model))
    )


def test_paths_and_numbers_that_are_not_finite_in_the_summary():
    metadata = dataclasses.replace(
        METADATA, training={"root": Path("x"), "loss": float("nan"), "best": (1, 2)}
    )
    assert metadata_from_json(metadata_to_json(metadata)).training == {
        "root": "x",
        "loss": None,
        "best": [1, 2],
    }


def test_values_that_json_cannot_hold_are_named():
    metadata = dataclasses.replace(METADATA, training={"net": {"module": nn.Identity()}})
    with pytest.raises(ConfigError, match=r"training\.net\.module is a Identity"):
        metadata_to_json(metadata)


@pytest.mark.parametrize(
    ("class_names", "message"), [(("a", "a"), "twice"), (("a", "b", "c"), "3 names; num_classes is 2")]
)
def test_class_names_are_checked(class_names, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(METADATA, class_names=class_names)


def edited(**changes):
    values = json.loads(metadata_to_json(METADATA))
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner = values
        for parent in parents:
            inner = inner[parent]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
    return json.dumps(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", r"metadata is \[\], not ModelMetadata"),
        ("{}", "metadata lacks model, class_names"),
        (edited(format_version=99), "written by a newer ramstrans .*: upgrade"),
        (edited(model__backbone=...), "model lacks backbone"),
        (edited(model__colour="red"), "metadata.model has unknown colour"),
        (edited(model__num_scales="two"), "model.num_scales is 'two', not a whole number"),
        (edited(model__num_scales=True), "model.num_scales is True, not a whole number"),
        (edited(model__num_scales=3), "model.thresholds has 2 values"),
        (
            edited(model__image_size=[1, 2, 3]),
            r"model.image_size is \[1, 2, 3\], not a whole number or a list of two",
        ),
        (edited(model__class_tokens="none"), "model.class_tokens is 'none', not .*joint"),
        (edited(class_names="crow"), "class_names is 'crow', not a list"),
        (edited(model__std=[1, 1]), "model.std is"),
        (edited(model__std=[1, 1, 0]), "std is .*above 0"),
        (edited(training=None), "training is None, not names and values"),
    ],
)
def test_damaged_metadata_are_config_errors_of_one_line(text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        metadata_from_json(text)
    assert "\n" not in str(caught.value)


def test_version_1_lacks_what_came_later():
    metadata = metadata_from_json(edited(format_version=1, early_exit=..., model__region_size=...))
    assert (metadata.format_version, metadata.early_exit, metadata.model.region_size) == (7, None, None)
    chosen = dataclasses.replace(metadata, early_exit=EarlyExit(0.75, "val", 7, -0.5, 1.25))
    assert metadata_from_json(metadata_to_json(chosen)) == chosen


def test_version_3_cut_the_centre_and_took_the_papers_regions():
    later = ("preprocessing__fit", "preprocessing__zoom_pixels")
    later += ("model__component", "model__min_region", "model__max_aspect", "model__region_placement")
    metadata = metadata_from_json(edited(format_version=3, **dict.fromkeys(later, ...)))
    assert (metadata.preprocessing.fit, metadata.preprocessing.zoom_pixels) == ("crop", None)
    model = metadata.model
    assert (model.component, model.min_region, model.max_aspect) == ("count", 0.0, None)
    assert model.region_placement == "found"


def test_how_regions_are_made_is_saved():
    model = dataclasses.replace(METADATA.model, component="saliency", min_region=0.25, max_aspect=2.0)
    preprocessing = Preprocessing(64, (48, 48), zoom_pixels=7)
    metadata = dataclasses.replace(METADATA, model=model, preprocessing=preprocessing)
    saved = metadata_from_json(metadata_to_json(metadata))
    assert saved.preprocessing == preprocessing
    assert (saved.model.component, saved.model.min_region, saved.model.max_aspect) == ("saliency", 0.25, 2.0)


def test_the_options_of_the_run_are_found_if_there_are_any():
    assert METADATA.run_options("data") == {"max_pixels": 7}
    assert METADATA.run_options("training") == {}
    assert dataclasses.replace(METADATA, training={}).run_options("data") == {}


@pytest.mark.parametrize("confidence", [0, -0.5, float("nan")])
def test_a_confidence_that_every_image_reaches_is_refused(confidence):
    with pytest.raises(ConfigError, match="give more than 0"):
        EarlyExit(confidence, "val", 7, 0.0, 1.0)


def test_saliency_was_neither_mirrored_nor_smoothed_before():
    later = dict.fromkeys(("model__saliency_mirrored", "model__saliency_blur"), ...)
    for version in (6, 7):
        model = metadata_from_json(edited(format_version=version, **later)).model
        assert (model.saliency_mirrored, model.saliency_blur) == (False, 0.0)
    model = dataclasses.replace(METADATA.model, saliency_mirrored=True, saliency_blur=0.5)
    saved = metadata_from_json(metadata_to_json(dataclasses.replace(METADATA, model=model))).model
    assert (saved.saliency_mirrored, saved.saliency_blur) == (True, 0.5)


def test_version_6_had_one_method():
    later = dict.fromkeys(("model__method", "model__num_tokens"), ...)
    model = metadata_from_json(edited(format_version=6, **later)).model
    assert (model.method, model.num_tokens) == ("rams", None)


@pytest.mark.parametrize("version", [6, 7])
def test_earlier_models_have_one_label_per_image(version):
    later = dict.fromkeys(("model__multi_label", "label_thresholds"), ...)
    metadata = metadata_from_json(edited(format_version=version, **later))
    assert (metadata.model.multi_label, metadata.label_thresholds) == (False, None)
    assert metadata.thresholds == (0.5, 0.5)


def test_a_threshold_per_label_is_saved():
    model = dataclasses.replace(METADATA.model, multi_label=True)
    metadata = dataclasses.replace(METADATA, model=model, label_thresholds=(0.25, 0.125))
    saved = metadata_from_json(metadata_to_json(metadata))
    assert saved.model.multi_label
    assert saved.thresholds == (0.25, 0.125)
    with pytest.raises(ConfigError, match="label_thresholds has 3 numbers; class_names has 2"):
        dataclasses.replace(METADATA, label_thresholds=(0.5, 0.5, 0.5))

"""`embed`, `similar`, `explain --against` and `add_class`, from their arguments to their files."""

import dataclasses
import json
import shutil
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from ramstrans.cli import main
from ramstrans.inference import embeddings
from ramstrans.inference.contrast import compare
from ramstrans.inference.embeddings import features_of
from ramstrans.inference.explain import explanation_to_json
from ramstrans.inference.predictor import Predictor
from ramstrans.saved.embeddings import load_embeddings, made_by
from ramstrans.training.config import TrainingConfig
from ramstrans.training.run import prepare, train
from tests.inference.builders import make_folder
from tests.tiny import tiny_run

CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def indexed(trained, tmp_path_factory):
    """A copy of the run, with an index."""
    folder = tmp_path_factory.mktemp("indexed") / "run"
    shutil.copytree(trained.folder, folder)
    assert main(["embed", str(folder), "--index", "true", *CPU]) == 0
    return folder


@pytest.fixture(scope="module")
def probe(colors, tmp_path_factory):
    """A linear probe that tells two colours, and the name of the one that it was not shown."""
    data = {"hold_out_classes": 1, "val_fraction": 0.25}
    config = dataclasses.replace(
        tiny_run(colors, "folder", data=data), training=TrainingConfig(finetune="head")
    )
    prepared = prepare(config)
    folder = tmp_path_factory.mktemp("probes") / "probe"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("plot_gallery", "plot_confusion", "report_page"):
            patch.setattr(f"ramstrans.evaluation.report.write.{name}", lambda *_, **__: "")
        train(prepared, folder)
    (left_out,) = {path.name for path in (colors / "train").iterdir()} - set(prepared.images.class_names)
    return folder, left_out


def embed(folder, *arguments):
    return main(["embed", str(folder), *map(str, arguments), *CPU])


def test_features_are_those_that_the_classifier_reads(trained, colors, tmp_path):
    images = sorted((colors / "test").glob("*/*.png"))
    assert embed(trained.folder, colors / "test", tmp_path / "no.jpg", "--output", tmp_path / "out") == 3
    table = parquet.read_table(tmp_path / "out" / "part-000000.parquet")
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: float>[48]"
    rows = table.to_pylist()
    assert [row["path"] for row in rows] == [*map(str, images), str(tmp_path / "no.jpg")]
    assert [row["error"] for row in rows] == [None] * 6 + ["no such file"]
    assert {row["label"] for row in rows} == {None}
    predictor = Predictor.load(trained.folder, "cpu")
    _, output = predictor.forward([predictor.read(path) for path in images])
    expected = np.stack([scale.feature.numpy() for scale in output.scales], axis=1).reshape(6, -1)
    np.testing.assert_allclose([row["embedding"] for row in rows[:6]], expected, rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        logits = predictor.model.encoder.forward_head(output.scales[1].feature)
    assert np.allclose(logits.numpy(), output.scales[1].logits.numpy())  # what the classifier reads
    found = load_embeddings(tmp_path / "out", made_by(predictor.model, predictor.metadata))
    assert len(found.paths) == 6


def test_a_split_has_its_classes_and_an_index_thumbnails(trained, indexed, tmp_path):
    assert embed(trained.folder, "--split", "val", "--output", tmp_path / "val") == 0
    rows = parquet.read_table(tmp_path / "val" / "part-000000.parquet").to_pylist()
    records = trained.prepared.images.of_split("val")
    names = trained.prepared.images.class_names
    assert [(row["path"], row["label"]) for row in rows] == [
        (str(record.path), names[record.label]) for record in records
    ]
    assert "thumbnail" not in rows[0]
    rows = parquet.read_table(indexed / "index" / "part-000000.parquet").to_pylist()
    assert len(rows) == len(trained.prepared.images.of_split("train"))
    with Image.open(BytesIO(rows[0]["thumbnail"])) as small:
        assert (small.format, small.size) == ("WEBP", (48, 48))


def test_an_interrupted_command_goes_on(trained, colors, tmp_path, monkeypatch, caplog):
    arguments = [colors / "test", "--output", tmp_path / "out", "--partition_rows", "2"]
    seen, features = [], embeddings._features

    def stops(predictor, examples):
        seen.append(len(examples))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return features(predictor, examples)

    monkeypatch.setattr(embeddings, "_features", stops)
    assert embed(trained.folder, *arguments) == 130
    assert [path.name for path in tmp_path.glob("out/*.parquet")] == ["part-000000.parquet"]
    assert embed(trained.folder, *arguments) == 0
    assert seen == [2, 2, 2, 2]
    assert "going on after 2 images in 1 partition" in caplog.text
    assert len(load_embeddings(tmp_path / "out").paths) == 6


def test_embed_says_what_it_needs(trained, indexed, colors, tmp_path, fails):
    assert "give images, or --split" in fails(2, "embed", trained.folder)
    both = fails(2, "embed", trained.folder, colors, "--split", "val", "--output", tmp_path / "x")
    assert "give images, or --split" in both
    assert "give --output FOLDER" in fails(2, "embed", trained.folder, colors)
    line = fails(2, "embed", trained.folder, colors, "--index", "true", "--output", tmp_path / "x")
    assert "leave out --output, INPUTS" in line
    assert "is finished" in fails(2, "embed", indexed, "--index", "true", *CPU)
    assert "--split" in fails(2, "embed", trained.folder, "--split", "some", "--output", tmp_path / "x")


def test_similar_finds_the_nearest_but_not_the_image_itself(trained, indexed, tmp_path, capsys):
    record = trained.prepared.images.of_split("train")[0]
    picture = tmp_path / "grid.png"
    assert main(["similar", str(indexed), str(record.path), "no.jpg", "--picture", str(picture), *CPU]) == 3
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["path"] == str(record.path)
    assert len(first["similar"]) == 5
    assert str(record.path) not in [one["path"] for one in first["similar"]]
    predictor = Predictor.load(indexed, "cpu")
    index = load_embeddings(indexed / "index")
    ((_, features, _),) = features_of(predictor, [record.path])
    parts = features.reshape(2, -1)
    parts = parts / np.linalg.norm(parts, axis=1, keepdims=True) / 2**0.5
    cosines = np.sort(index.units @ parts.reshape(-1))[::-1]
    assert cosines[0] == pytest.approx(1, abs=1e-5)  # itself
    assert [one["cosine"] for one in first["similar"]] == pytest.approx(cosines[1:6], abs=1e-5)
    assert {one["label"] for one in first["similar"]} <= set(trained.prepared.images.class_names)
    assert second == {"path": "no.jpg", "error": "no such file", "similar": []}
    with Image.open(picture) as image:
        assert image.width / image.height == pytest.approx(6 * 1.7 / 2.15, rel=0.02)


def test_similar_refuses_what_it_cannot_compare(trained, indexed, colors, tmp_path, fails):
    image = next((colors / "test").glob("*/*.png"))
    assert "has no index; make one with" in fails(2, "similar", trained.folder, image, *CPU)
    other = make_folder(tmp_path / "other")
    shutil.copytree(indexed / "index", other / "index")
    assert "is of another model" in fails(2, "similar", other, image, *CPU)
    assert "numbers per image" in fails(2, "similar", indexed, image, "--num_scales", "1", *CPU)


def test_why_not_the_runner_up(indexed, colors, tmp_path, capsys):
    image, picture = next((colors / "test").glob("*/*.png")), tmp_path / "why.png"
    command = ["explain", indexed, image, "--output", picture, "--against", "runner_up", *CPU]
    assert main(list(map(str, command))) == 0
    values = json.loads(picture.with_suffix(".json").read_text())
    compared = values.pop("against")
    assert [compared["answer"], compared["class"]] == values["labels"][:2]
    assert compared["probabilities"] == pytest.approx(values["probabilities"][:2])
    assert f"; not {compared['class']}" in capsys.readouterr().out.splitlines()[0]
    for name in ("answer", "class"):
        assert [one["label"] for one in compared["nearest"][name]] == [compared[name]] * 3
    for scale in values["scales"]:
        contrast = scale.pop("contrast")
        assert np.shape(contrast["map"]) == np.shape(scale["saliency"])
        assert np.abs(contrast["map"]).max() > 0
    plain = explanation_to_json(Predictor.load(indexed, "cpu").explain(image))
    assert values == plain  # the explanation is the same as without
    with Image.open(picture) as drawn:  # three rows of 3.1 inches, and one of 2.2
        assert drawn.height / drawn.width == pytest.approx((3 * 3.1 + 2.2) / 14, abs=0.01)


def test_why_not_a_class_by_name(trained, colors, fails):
    image = next((colors / "test").glob("*/*.png"))
    predictor = Predictor.load(trained.folder, "cpu")
    names = predictor.class_names
    first, second, third = predictor(image).labels
    # where the answer is that class, it is compared with the runner-up
    for name, other in ((first, second), (second, second), (third, third)):
        found = compare(predictor, image, name)
        assert (found.answer, found.against, found.nearest) == (first, other, None)
        differences = [one.difference for one in found.scales]
    _, output = predictor.forward([predictor.read(image)])
    rows = [names.index(first), names.index(third)]
    expected = [float(scale.logits[0, rows[0]] - scale.logits[0, rows[1]]) for scale in output.scales]
    assert differences == pytest.approx(expected, abs=1e-4)
    line = fails(2, "explain", trained.folder, image, "--against", names[0].lower() + "x", *CPU)
    assert f"did you mean '{names[0]}'?" in line
    assert "3 classes" in line


def test_a_class_is_added_and_the_rest_stays(probe, colors, tmp_path, capsys):
    folder, name = probe
    output, weights = tmp_path / "three", (folder / "model.safetensors").read_bytes()
    command = ["add_class", folder, "new one", colors / "train" / name, "--output", output, *CPU]
    assert main(list(map(str, command))) == 0
    assert "the new model has none" in capsys.readouterr().err
    assert (folder / "model.safetensors").read_bytes() == weights
    old, three = (Predictor.load(one, "cpu") for one in (folder, output))
    assert three.class_names == (*old.class_names, "new one")
    (added,) = three.metadata.training["added_classes"]
    assert (added["name"], added["num_images"]) == ("new one", 4)
    images = sorted((colors / "test").glob("*/*.png"))
    outputs = [model.forward([model.read(path) for path in images])[1] for model in (old, three)]
    for before, after in zip(outputs[0].scales, outputs[1].scales, strict=True):
        assert np.array_equal(before.feature.numpy(), after.feature.numpy())
        np.testing.assert_allclose(before.logits.numpy(), after.logits.numpy()[:, :2], atol=1e-6)
    answers = [three.class_names[label] for label in outputs[1].fused.argmax(dim=1)]
    expected = [{name: "new one"}.get(path.parent.name, path.parent.name) for path in images]
    assert answers == expected
    assert not (output / "calibration.json").exists()


def test_a_class_is_added_to_a_model_that_has_an_added_one(probe, colors, tmp_path):
    folder, name = probe
    for number in (0, 1):
        command = ["add_class", folder, f"new {number}", colors / "train" / name]
        folder = tmp_path / str(number)
        assert main(list(map(str, [*command, "--output", folder, *CPU]))) == 0
    assert Predictor.load(folder, "cpu").class_names[2:] == ("new 0", "new 1")


def test_add_class_says_what_is_wrong(probe, trained, colors, tmp_path, fails, capsys):
    folder, name = probe
    new, output = colors / "train" / name, tmp_path / "out"
    known = Predictor.load(folder, "cpu").class_names[1]

    def refused(code, *arguments):
        return fails(code, "add_class", folder, *arguments, *CPU)

    assert "give --output FOLDER" in refused(2, "Wren", new)
    assert "is the model itself" in refused(2, "Wren", new, "--output", folder)
    assert f"has a class '{known}' already" in refused(2, known, new, "--output", output)
    assert "is empty" in refused(2, " ", new, "--output", output)
    (tmp_path / "none").mkdir()
    assert "contains no images" in refused(3, "Wren", tmp_path / "none", "--output", output)
    assert "no such file" in refused(3, "Wren", "no.jpg", "--output", output)
    (tmp_path / "bad.png").write_bytes(b"nothing")
    assert "repair it or leave it out" in refused(3, "Wren", new, tmp_path / "bad.png", "--output", output)
    untrained = fails(3, "add_class", trained.folder, "Wren", new, "--output", output, *CPU)
    assert "train it further" in untrained
    assert not output.exists()
    one = next(new.glob("*.png"))
    assert main(list(map(str, ["add_class", folder, "W", one, "--output", output, *CPU]))) == 0
    assert "1 of 5 photographs" in capsys.readouterr().err
    assert "exists" in refused(2, "W", one, "--output", output)
    (output / "report.json").write_text("{}")
    overwrite = ["add_class", folder, "W", one, "--output", output, "--overwrite", "true", *CPU]
    assert main(list(map(str, overwrite))) == 0
    assert not (output / "report.json").exists()

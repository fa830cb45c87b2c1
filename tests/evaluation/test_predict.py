import numpy as np
import pytest
import torch

from ramstrans.data.datasets.image_folder import read_image_folder
from ramstrans.data.geometry import Geometry
from ramstrans.data.loading.dataset import Batch, ImageDataset, collate
from ramstrans.data.loading.loader import build_loader
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import UsageError
from ramstrans.evaluation.predict import (
    autocast,
    boxes_in_originals,
    choose_precision,
    predict_split,
)
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.base import Output, Stage
from ramstrans.saved.metadata import ModelMetadata
from tests.models.builders import randomise
from tests.training.builders import tiny_model

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing((60, 50), (48, 44))


@pytest.fixture(scope="module")
def model():
    return randomise(tiny_model(image_size=(24, 32), zoom_source="full"))


@pytest.fixture(scope="module")
def dataset(colors):
    records = read_image_folder(colors).of_split("test")[:5]
    return ImageDataset(records, PREPROCESSING, (24, 32))


def loader_of(dataset, batch_size=2, with_high_res=True):
    return build_loader(dataset, batch_size, shuffle=False, with_high_res=with_high_res)


def predict(model, dataset, **options):
    return predict_split(model, loader_of(dataset), **options)


def test_predictions_are_the_models_in_the_order_of_the_records(model, dataset):
    predictions = predict(model, dataset)
    batch = collate([dataset[0, index] for index in range(5)], with_high_res=True)
    with torch.no_grad():
        output = model(*model.normalize(batch.images, batch.high_res))
    assert predictions.probabilities.shape == (2, 5, 3)
    np.testing.assert_allclose(predictions.probabilities, output.probabilities.numpy(), atol=1e-5)
    assert predictions.labels.tolist() == [record.label for record in dataset.records]
    assert predictions.records == dataset.records
    assert predictions.has_region.shape == (1, 5)  # of scale 1, whose region scale 2 sees
    assert predictions.has_region.dtype == bool
    assert predictions.image_sizes.tolist() == [[40, 48]] * 5


def test_boxes_are_in_pixels_of_the_original_images(model, dataset):
    """The crop of 48 x 44 out of 60 x 50 shows 35.2 x 38.4 of an image's 40 x 48 pixels."""
    predictions = predict(model, dataset)
    batch = collate([dataset[0, index] for index in range(5)], with_high_res=True)
    with torch.no_grad():
        output = model(*model.normalize(batch.images, batch.high_res))
    for scale, boxes in zip(output.scales[:1], predictions.boxes, strict=True):
        share = scale.boxes.numpy() / np.array([32, 24, 32, 24])
        expected = share * np.array([35.2, 38.4] * 2) + np.array([2.4, 4.8] * 2)
        np.testing.assert_allclose(boxes, expected, atol=1e-3)


def test_a_plain_vit_has_a_region_all_the_same(dataset):
    model = randomise(tiny_model(image_size=(24, 32), num_scales=1))
    predictions = predict_split(model, loader_of(dataset, with_high_res=False))
    assert predictions.boxes.shape == (1, 5, 4)


def test_mirrored_boxes_are_turned_back():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 20.0], [0.0, 0.0, 10.0, 20.0]])
    scale = Stage(torch.zeros(2, 3), None, None, None, boxes, torch.ones(2, dtype=torch.bool))
    geometries = (
        Geometry((0.5, 2.0), (7.0, 4.0), 32.0),
        Geometry((0.5, 2.0), (7.0, 4.0), 32.0, flip=True),
    )
    batch = Batch(
        torch.zeros(2, 3, 24, 32), None, torch.zeros(2), torch.zeros(2), geometries, torch.zeros(2), (2, 2)
    )
    found = boxes_in_originals(Output((scale, scale)), batch)
    assert found.shape == (2, 2, 4)
    assert found.dtype == np.float32
    assert found[1].tolist() == [[14, 2, 34, 12], [58, 2, 78, 12]]


def test_prediction_needs_no_gradient_and_leaves_eval_mode(model, dataset):
    model.train()
    calls = []
    predict(model, dataset, progress=lambda *news: calls.append(news))
    assert not model.training
    assert calls == [(1, 3, "evaluating"), (2, 3, "evaluating"), (3, 3, "evaluating")]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision_predicts_nearly_the_same(model, dataset):
    exact = predict(model, dataset)
    rounded = predict(model, dataset, precision="bf16")
    assert rounded.probabilities.dtype == np.float32
    difference = np.abs(exact.probabilities[0] - rounded.probabilities[0]).max()
    assert 0 < difference < 0.1


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_autocast_computes_in_the_given_precision(precision, dtype):
    with autocast(CPU, precision):
        assert (torch.ones(3, 3) @ torch.ones(3, 3)).dtype == dtype


def metadata_of(precision):
    training = {"run": {"training": {"precision": precision}}} if precision else {}
    return ModelMetadata(ModelConfig(), ("crow", "wren"), PREPROCESSING, training)


@pytest.mark.usefixtures("bf16_units")
@pytest.mark.parametrize(
    ("given", "trained", "device", "expected"),
    [
        (None, None, "cpu", "fp32"),
        (None, "bf16", "cpu", "bf16"),
        ("fp32", "bf16", "cpu", "fp32"),
        (None, "fp16", "cuda", "fp16"),
        ("fp16", "fp32", "cuda", "fp16"),
    ],
)
def test_the_given_precision_comes_before_that_of_the_training(given, trained, device, expected):
    assert choose_precision(given, metadata_of(trained), torch.device(device)) == expected


@pytest.mark.parametrize("bf16_units", [False], indirect=True)
def test_a_cpu_without_units_for_bf16_predicts_in_fp32_unless_told(bf16_units, caplog):
    caplog.set_level("INFO")
    assert choose_precision(None, metadata_of("bf16"), torch.device("cpu")) == "fp32"
    assert "the model was trained in bf16, for which this CPU has no units" in caplog.text
    assert choose_precision("bf16", metadata_of("bf16"), torch.device("cpu")) == "bf16"
    assert choose_precision(None, metadata_of("bf16"), torch.device("cuda")) == "bf16"


def test_fp16_on_a_cpu_is_refused_or_replaced(caplog):
    with pytest.raises(UsageError, match="fp16 needs a GPU; on a CPU give bf16 or fp32"):
        choose_precision("fp16", metadata_of(None), CPU)
    with caplog.at_level("INFO", "ramstrans"):
        assert choose_precision(None, metadata_of("fp16"), CPU) == "fp32"
    assert "trained in fp16, which needs a GPU" in caplog.text
    with pytest.raises(UsageError, match="'int8'; give fp32, bf16, fp16"):
        choose_precision("int8", metadata_of(None), CPU)

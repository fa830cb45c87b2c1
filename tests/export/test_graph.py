"""The graph of an export against the model, and its resize against Pillow's."""

import numpy as np
import pytest
import torch
from PIL import Image

from ramstrans.calibration.fitted import Calibration, FusedRule, UnknownRule
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import UsageError
from ramstrans.export.graph import Answers, Graph, Shrink
from ramstrans.models.zoom import zoom
from ramstrans.saved.metadata import ModelMetadata
from tests.models.builders import noise, tiny_config, tiny_model

NAMES = tuple("abc")


def graph_of(model, preprocessing, **fields):
    config = tiny_config(num_classes=3, **fields)
    return Graph(model, ModelMetadata(config, NAMES, preprocessing))


@pytest.mark.parametrize(
    ("size", "new"),
    [
        ((40, 60), (24, 42)),
        ((48, 56), (48, 56)),
        ((13, 29), (31, 30)),
        ((96, 64), (32, 32)),
        ((5, 7), (1, 1)),
    ],
)
def test_pixels_are_resized_as_by_pillow(size, new):
    pixels = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize(new[::-1], Image.Resampling.BILINEAR))
    found = Shrink(size, new)(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())[0].permute(1, 2, 0)
    difference = np.abs(found.numpy() - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.03  # halves that a sum rounds the other way


def test_regions_by_products_are_the_same_and_leave_the_model_alone():
    model = tiny_model(num_scales=2, image_size=(64, 96)).eval()
    metadata = ModelMetadata(
        tiny_config(num_classes=3, image_size=(64, 96)), NAMES, Preprocessing((80, 120), (80, 120))
    )
    pixels = (noise(3, 3, 80, 120).sigmoid() * 255).to(torch.uint8)
    with torch.no_grad():
        expected = Graph(model, metadata)(pixels)
        found = Graph(model, metadata, by_products=True)(pixels)
    assert model.cut is zoom
    assert not torch.equal(found[1][1], expected[1][1])  # another sum
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("zoom_source", ["input", "full"])
def test_the_graph_is_resize_normalisation_and_model(zoom_source):
    model = tiny_model(num_scales=3, image_size=(64, 96), zoom_source=zoom_source).eval()
    graph = graph_of(model, Preprocessing((80, 120), (80, 120)), image_size=(64, 96), num_scales=3)
    pixels = (noise(2, 3, 80, 120).sigmoid() * 255).to(torch.uint8)
    with torch.no_grad():
        answers = Answers(**dict(zip(graph.output_names, graph(pixels), strict=True)))
        small = graph.shrink(pixels.float())
        high_res = None if zoom_source == "input" else pixels.float()
        output = model(*model.normalize(small, high_res), last_region=False)
    assert torch.equal(answers.probabilities, output.fused)
    assert torch.equal(answers.scale_probabilities, output.probabilities)
    for found, stage in zip(answers.boxes, output.scales, strict=False):
        torch.testing.assert_close(found, stage.boxes * 1.25)  # in pixels of the input
    assert torch.equal(answers.found, torch.stack([stage.has_region for stage in output.scales[:2]]))
    assert torch.equal(answers.saliency, output.scales[0].saliency)


def test_one_scale_has_no_boxes():
    model = tiny_model(num_scales=1).eval()
    graph = graph_of(model, Preprocessing(96, model.image_size), num_scales=1)
    assert graph.output_names == ("probabilities", "scale_probabilities")
    assert len(graph(torch.zeros(1, 3, *model.image_size, dtype=torch.uint8))) == 2


def test_one_scale_of_a_calibrated_model():
    """With its temperature, and with its rule of the unknown, not that of two scales."""
    model = tiny_model(num_scales=1).eval()
    energy, knn = (UnknownRule(name, (1,), 0.0, 0.05, "name", None, None) for name in ("energy", "knn"))
    rules = FusedRule(2.0, energy, None), FusedRule(3.0, knn, None)
    calibration = Calibration("val", 60, "", (1.5, 1.2), rules).first(1)
    metadata = ModelMetadata(
        tiny_config(num_classes=3, num_scales=1), NAMES, Preprocessing(96, model.image_size)
    )
    graph = Graph(model, metadata, calibration=calibration)
    pixels = (noise(2, 3, *model.image_size).sigmoid() * 255).to(torch.uint8)
    with torch.no_grad():
        answers = Answers(**dict(zip(graph.output_names, graph(pixels), strict=True)))
        (scale,) = model(*model.normalize(pixels.float(), None)).scales
    assert answers.boxes is None
    torch.testing.assert_close(answers.probabilities, (scale.logits / 2).softmax(dim=1))
    torch.testing.assert_close(answers.scale_probabilities[0], (scale.logits / 1.5).softmax(dim=1))
    torch.testing.assert_close(answers.unknown_score, -scale.logits.logsumexp(dim=1))


def test_several_labels_have_a_sigmoid_each():
    model = tiny_model(num_scales=2, multi_label=True).eval()
    graph = graph_of(model, Preprocessing(96, model.image_size), num_scales=2, multi_label=True)
    pixels = (noise(2, 3, *model.image_size).sigmoid() * 255).to(torch.uint8)
    with torch.no_grad():
        fused, by_scale, *_ = graph(pixels)
        logits = [scale.logits for scale in model(*model.normalize(pixels.float(), None)).scales]
    torch.testing.assert_close(by_scale, torch.stack(logits).sigmoid())
    torch.testing.assert_close(fused, torch.stack(logits).sigmoid().mean(dim=0))


def test_what_cannot_be_one_graph_is_refused():
    model = tiny_model(zoom_source="native")
    with pytest.raises(UsageError, match=r"photographs of any size.*zoom_source full.*--num_scales 1"):
        graph_of(model, Preprocessing(64, (64, 64)))
    given = tiny_model(region_placement="given")
    with pytest.raises(UsageError, match="looks at the true boxes, which new photographs have not"):
        graph_of(given, Preprocessing(64, (64, 64)))


def test_the_two_looks_of_glsim_have_a_box():
    model = tiny_model(method="glsim", image_size=(64, 96)).eval()
    graph = graph_of(model, Preprocessing((80, 120), (80, 120)), method="glsim", image_size=(64, 96))
    pixels = (noise(3, 3, 80, 120).sigmoid() * 255).to(torch.uint8)
    with torch.no_grad():
        answers = Answers(**dict(zip(graph.output_names, graph(pixels), strict=True)))
        (stage,) = model(*model.normalize(graph.shrink(pixels.float()), None)).scales
    assert answers.scale_probabilities.shape == (1, 3, 5)
    torch.testing.assert_close(answers.boxes, stage.boxes[None] * 1.25)
    assert torch.equal(answers.found, stage.has_region[None])
    assert torch.equal(answers.saliency, stage.saliency)

"""What PyTorch's exporter could not do alone: backbones and methods whose graphs need help."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.export.formats import OPSET, _FlatAttention, tidy, write_graph
from ramstrans.export.graph import Graph
from ramstrans.export.runner import open_graph
from ramstrans.saved.metadata import ModelMetadata
from tests.models.builders import noise, tiny_config, tiny_model

HELPED = {
    "position biases": {"backbone": "beit_base_patch16_224", "backbone_options": {"depth": 1}},
    "FFVT sorts": {"method": "ffvt"},
    "GLSim sorts": {"method": "glsim"},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", HELPED)
def test_the_graph_is_the_model(kind, tmp_path):
    for library in ("onnxruntime", "onnxscript"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    fields = {"image_size": (32, 48), "backbone_options": {"depth": 2}, **HELPED[kind]}
    metadata = ModelMetadata(tiny_config(**fields), tuple("abcde"), Preprocessing((32, 48), (32, 48)))
    graph = Graph(tiny_model(**fields), metadata)
    write_graph(graph, (32, 48), tmp_path, "onnx")
    pixels = (noise(3, 3, 32, 48).sigmoid() * 255).to(torch.uint8)
    with torch.no_grad():
        expected = dict(zip(graph.output_names, graph(pixels), strict=True))
    found = open_graph(tmp_path)(pixels.numpy())
    assert expected.keys() == found.keys()
    assert np.ptp(found["probabilities"], axis=0).max() > 0.05  # what is compared differs between images
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.numpy(), atol=1e-5, err_msg=name)


class Windows(nn.Module):
    """Attention in each of 3 windows, as Hiera, Nest and Twins have it: five dimensions."""

    def forward(self, images):
        query, key, value = images.unflatten(1, (3, 2, 3)).unbind(1)  # (B, 2, 3, tokens, channels)
        return F.scaled_dot_product_attention(query, key, value, scale=0.3)


class Clips(nn.Module):
    """Three times two clips that become one, of the same values."""

    def forward(self, values):
        limits = ((-1.0, 1.0, -0.5, 2.0), (-2.0, 0.25, -3.0, 3.0), (0.5, 3.0, -1.0, 2.0))
        return torch.stack([values.clamp(a, b).clamp(c, d) for a, b, c, d in limits])


def test_clips_of_the_same_values_keep_their_limits(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    values = torch.linspace(-4, 4, 17)
    program = torch.export.export(Clips(), (values,))
    exported = torch.onnx.export(program, (), dynamo=True, opset_version=OPSET, verbose=False)
    tidy(exported.model)
    exported.save(str(tmp_path / "model.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: values.numpy()})
    np.testing.assert_array_equal(found, Clips()(values).numpy())


def test_attention_in_windows_has_four_dimensions():
    images = noise(2, 18, 5, 8)
    program = torch.export.export(Windows(), (images,))
    with _FlatAttention():
        flat = torch.export.export(Windows(), (images,))
    for exported, ndim in ((program, 5), (flat, 4)):
        node = next(node for node in exported.graph.nodes if "scaled_dot_product" in str(node.target))
        assert node.args[0].meta["val"].ndim == ndim
    expected = Windows()(images)
    assert expected.shape == (2, 2, 3, 5, 8)
    torch.testing.assert_close(flat.module()(images), expected)

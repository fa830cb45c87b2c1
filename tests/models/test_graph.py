"""The model as one graph: no value is looked at on the host, and it compiles and exports."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode

from ramstrans.errors import UsageError
from tests.models.builders import OTHERS, SIZE, every_set_up, noise, other_model, tiny_model


@every_set_up
def test_no_value_is_looked_at_on_the_host(class_tokens, saliency_rows):
    model = tiny_model(num_scales=3, class_tokens=class_tokens, saliency_rows=saliency_rows)
    with FakeTensorMode(allow_non_fake_inputs=True):  # tensors without values: a look at one would raise
        output = model(torch.empty(7, 3, *SIZE))
    assert [scale.boxes.shape for scale in output.scales] == [(7, 4)] * 3


REGION = {"component": "saliency", "min_region": 0.4, "max_aspect": 1.5}
SOFT = {"component": "soft", "thresholds": (1.0, 1.0)}


@pytest.mark.parametrize(
    ("zoom_source", "region"),
    [
        ("input", REGION),
        ("input", SOFT),
        *(pytest.param(source, {}, marks=pytest.mark.slow) for source in ("input", "full")),
    ],
)
def test_compiles_into_one_graph(zoom_source, region):
    model = tiny_model(num_scales=2, zoom_source=zoom_source, **region)
    close = 1e-4 if region is SOFT else 1e-5  # rounding of saliency moves soft regions
    images = noise(2, 3, *SIZE)
    inputs = (images,) if zoom_source == "input" else (images, F.interpolate(images, scale_factor=2))
    with torch.no_grad():
        expected, compiled = model(*inputs), torch.compile(model, fullgraph=True, backend="eager")
        for output in (compiled(*inputs), compiled(*inputs)):
            for scale, want in zip(output.scales, expected.scales, strict=True):
                for got, value in zip(scale, want, strict=True):
                    torch.testing.assert_close(got, value, rtol=close, atol=close)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("zoom_source", "fields"),
    [("input", {}), ("input", SOFT), ("full", {"region_size": (80, 64), **REGION}), ("native", {})],
)
def test_exports_for_any_batch(zoom_source, fields):
    model = tiny_model(num_scales=2, zoom_source=zoom_source, **fields)
    images = noise(7, 3, *SIZE)
    high_res = None if zoom_source == "input" else F.interpolate(images, scale_factor=2)
    batch = torch.export.Dim("batch", min=1, max=97)
    exported = torch.export.export(
        model,
        (images[:3], None if high_res is None else high_res[:3]),
        dynamic_shapes=({0: batch}, None if high_res is None else {0: batch}),
    ).module()
    for number in (1, 7):
        inputs = (images[:number], None if high_res is None else high_res[:number])
        for scale, want in zip(exported(*inputs).scales, model(*inputs).scales, strict=True):
            for got, value in zip(scale, want, strict=True):
                torch.testing.assert_close(got, value, rtol=1e-5, atol=1e-5)


every_other = pytest.mark.parametrize("name", OTHERS)


@every_other
def test_no_value_is_looked_at_in_other_models(name):
    model = other_model(name)
    with FakeTensorMode(allow_non_fake_inputs=True):
        output = model(torch.empty(7, 3, *model.image_size))
    assert [scale.boxes.shape for scale in output.scales] == [(7, 4)] * 2


def assert_same_scales(found, expected):
    for scale, want in zip(found.scales, expected.scales, strict=True):
        for got, value in zip(scale, want, strict=True):
            torch.testing.assert_close(got, value, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@every_other
def test_other_models_compile_into_one_graph(name):
    model = other_model(name)
    images = noise(2, 3, *model.image_size)
    with torch.no_grad():
        assert_same_scales(torch.compile(model, fullgraph=True, backend="eager")(images), model(images))


@pytest.mark.slow
@every_other
def test_other_models_export_for_any_batch(name):
    model = other_model(name)
    images = noise(5, 3, *model.image_size)
    batch = torch.export.Dim("batch", min=1, max=97)
    with torch.no_grad():
        exported = torch.export.export(model, (images[:3], None), dynamic_shapes=({0: batch}, None)).module()
        for number in (1, 5):
            assert_same_scales(exported(images[:number], None), model(images[:number]))


def test_images_of_several_sizes_are_refused_with_what_to_do():
    model, images = tiny_model(num_scales=2, zoom_source="native"), noise(2, 3, *SIZE)
    high_res = [torch.zeros(3, *size, dtype=torch.uint8) for size in ((50, 60), (70, 80))]
    with pytest.raises(UsageError, match=r"several sizes; pass high_res as one tensor"):
        torch.export.export(model, (images, high_res))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("zoom_source", ["input", "full"])
def test_no_synchronisation_on_a_gpu(zoom_source):
    model = tiny_model(num_scales=3, zoom_source=zoom_source).cuda()
    images = noise(7, 3, *SIZE).cuda()
    high_res = F.interpolate(images, scale_factor=2) if zoom_source == "full" else None
    with torch.inference_mode():
        expected = model(images, high_res)
        torch.cuda.set_sync_debug_mode("error")
        try:
            output = model(images, high_res)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(output.fused, expected.fused)

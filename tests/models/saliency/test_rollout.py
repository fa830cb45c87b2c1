import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ramstrans.data.datasets.cub import read_cub
from ramstrans.data.loading.transforms import make_view
from ramstrans.data.preprocessing import Preprocessing, Reading
from ramstrans.data.reading.decode import read_resized
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.build import build_model
from ramstrans.models.regions import propose_regions
from ramstrans.models.saliency import rollout as module
from ramstrans.models.saliency.rollout import IMPLEMENTATIONS, rollout, rollout_weights
from tests.models.builders import noise
from tests.models.oracles import rollout_twin
from tests.shared import CUB50, DEIT_TINY, needs

every_method = pytest.mark.parametrize("method", IMPLEMENTATIONS)
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


class Pass(NamedTuple):
    """One forward pass to be made up: sizes, options and a seed, so that a failing example is one line."""

    batch: int
    heads: int
    grid: tuple[int, int]
    dim: int
    layers: int
    num_prefix: int
    class_index: int
    rows: str
    scale: float
    spread: float
    seed: int

    @property
    def options(self):
        names = ("scale", "num_prefix", "grid", "rows", "class_index")
        return {name: getattr(self, name) for name in names}

    def tensors(self):
        """Queries and keys (L, B, H, N, d), in float32."""
        tokens = self.num_prefix + self.grid[0] * self.grid[1]
        shape = (self.layers, self.batch, self.heads, tokens, self.dim)
        return [self.spread * noise(*shape, seed=self.seed + offset) for offset in (0, 1)]

    def tolerance(self):
        """The relative error of float32 arithmetic; in 3,500 random passes it was at most a quarter of this.

        A score is a sum of `dim` products, with a rounding error of about eps / 2 times the sum of their
        absolute values. The softmax makes a relative error of it twice: in the exponential and in the sum
        that divides it. The rest are sums and products of numbers that are not negative, at a few eps. The
        errors of layers add up.
        """
        queries, keys = self.tensors()
        score = self.scale * (queries.abs() @ keys.abs().mT).max().item()
        return self.layers * torch.finfo(torch.float32).eps * (score + 4)


@st.composite
def passes(draw, max_layers=7):
    num_prefix, dim = draw(st.integers(1, 5)), draw(st.sampled_from([1, 2, 7, 13]))
    return Pass(
        batch=draw(st.sampled_from([1, 2, 3])),
        heads=draw(st.sampled_from([1, 2, 3, 5])),
        grid=draw(st.sampled_from([(1, 1), (1, 7), (5, 1), (2, 3), (5, 7), (11, 3)])),
        dim=dim,
        layers=draw(st.sampled_from([layers for layers in (1, 2, 3, 7) if layers <= max_layers])),
        num_prefix=num_prefix,
        class_index=draw(st.integers(0, num_prefix - 1)),
        rows=draw(st.sampled_from(["all", "class"])),
        scale=draw(st.sampled_from([dim**-0.5, 1.0, 0.17])),
        spread=draw(st.sampled_from([0.0, 0.3, 1.0, 3.0])),
        seed=draw(st.integers(0, 2**32 - 2)),
    )


def check_product(method, drawn):
    """The rollout is the product of the layers' matrices, whose rows sum to 1 and are never negative."""
    queries, keys = drawn.tensors()
    expected, _ = rollout_twin(queries, keys, **drawn.options)
    saliency = rollout(list(queries), list(keys), method=method, **drawn.options)
    assert saliency.dtype == torch.float32
    assert (saliency >= 0).all()
    np.testing.assert_allclose(saliency, expected, rtol=drawn.tolerance(), atol=1e-8)


def check_bfloat16(method, drawn):
    """Half precision (eps 8e-3) is close, and answers in float32."""
    queries, keys = (tensor.clamp(-2, 2).bfloat16() for tensor in drawn.tensors())
    options = drawn.options | {"scale": drawn.dim**-0.5 / 2}
    expected, _ = rollout_twin(queries.float(), keys.float(), **options)
    saliency = rollout(list(queries), list(keys), method=method, **options)
    assert saliency.dtype == torch.float32
    np.testing.assert_allclose(saliency, expected, rtol=1e-2, atol=1e-2 / queries.shape[-2])


@pytest.mark.parametrize("check", [check_product, check_bfloat16])
@settings(max_examples=80)
@given(drawn=passes())
def test_tiles_are_the_slow_twin(check, drawn):
    check("tiles", drawn)


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_product, check_bfloat16])
@settings(max_examples=15)  # each takes long without `torch.compile`
@given(drawn=passes(max_layers=3))
def test_flex_is_the_slow_twin(check, drawn):
    check("flex", drawn)


@pytest.mark.parametrize(
    ("rows", "class_index", "expected"), [("all", 0, 0.475), ("class", 0, 0.35), ("class", 1, 0.6)]
)
def test_one_layer_of_two_tokens_by_hand(rows, class_index, expected):
    # scores [[ln 3/7, 0], [ln 4, 0]] give A = [[.3, .7], [.8, .2]], so G = [[.65, .35], [.4, .6]]
    query = torch.tensor([math.log(3 / 7), math.log(4)]).view(1, 1, 2, 1)
    key = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1)
    saliency = rollout(
        [query], [key], scale=1.0, num_prefix=1, grid=(1, 1), rows=rows, class_index=class_index
    )
    assert saliency.shape == (1, 1, 1)
    assert saliency.item() == pytest.approx(expected)


def test_two_layers_of_two_tokens_by_hand():
    # G1 as above, A2 = [[.5, .5], [.1, .9]] so G2 = [[.75, .25], [.05, .95]];
    # G2 G1 = [[.5875, .4125], [.4125, .5875]] and G1 G2 would have another class row: [.505, .495]
    key = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1)
    first = torch.tensor([math.log(3 / 7), math.log(4)]).view(1, 1, 2, 1)
    second = torch.tensor([0.0, -math.log(9)]).view(1, 1, 2, 1)
    saliency = rollout(
        [first, second], [key, key], scale=1.0, num_prefix=1, grid=(1, 1), rows="class", class_index=0
    )
    assert saliency.item() == pytest.approx(0.4125)


@pytest.mark.parametrize(("method", "size"), [("tiles", 1e3), ("flex", 10)])  # flex adds scores and their sum
def test_large_scores_do_not_overflow(method, size):
    queries, keys = size * noise(3, 2, 2, 13, 5, seed=1), size * noise(3, 2, 2, 13, 5, seed=2)
    options = {"scale": 1.0, "num_prefix": 1, "grid": (3, 4)}
    saliency = rollout(list(queries), list(keys), method=method, **options)
    expected, _ = rollout_twin(queries, keys, **options)  # every row has one winner
    np.testing.assert_allclose(saliency, expected, rtol=2e-4, atol=1e-6)


def test_large_bfloat16_scores_still_share_out_one():
    queries, keys = (1e3 * noise(3, 2, 2, 13, 5, seed=seed).bfloat16() for seed in (1, 2))
    shares = torch.full((2, 13), 1 / 13)
    for query, key in zip(queries, keys, strict=True):
        shares = module.propagate_tiled(shares, query, key, 1.0)
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(2))


def test_images_of_a_batch_do_not_meet():
    queries, keys = noise(3, 5, 2, 17, 7, seed=1), noise(3, 5, 2, 17, 7, seed=2)
    options = {"scale": 7**-0.5, "num_prefix": 2, "grid": (3, 5)}
    together = rollout(list(queries), list(keys), **options)
    for image in range(5):
        alone = rollout(list(queries[:, [image]]), list(keys[:, [image]]), **options)
        torch.testing.assert_close(alone[0], together[image], rtol=1e-6, atol=1e-8)


def test_autocast_changes_nothing():
    queries, keys = 3 * noise(3, 2, 2, 17, 7, seed=1), noise(3, 2, 2, 17, 7, seed=2)
    options = {"scale": 7**-0.5, "num_prefix": 2, "grid": (3, 5)}
    plain = rollout(list(queries), list(keys), **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = rollout(list(queries), list(keys), **options)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, plain)


def test_takes_no_gradient_and_leaves_its_input():
    queries, keys = noise(2, 1, 1, 5, 3).requires_grad_(), noise(2, 1, 1, 5, 3, seed=1)
    before = queries.clone()
    saliency = rollout(list(queries), list(keys), scale=1.0, num_prefix=1, grid=(2, 2))
    assert not saliency.requires_grad
    assert torch.equal(queries, before)


def test_grid_that_does_not_fit_the_tokens_is_our_mistake():
    tokens = [torch.zeros(1, 1, 5, 3)]
    with pytest.raises(AssertionError, match="disagree"):
        rollout(tokens, tokens, scale=1.0, num_prefix=2, grid=(2, 2))


@every_method
def test_a_push_is_a_row_times_the_head_mean(method):
    shares = noise(2, 7, seed=3).abs()
    query, key = noise(2, 3, 7, 5, seed=1), noise(2, 3, 7, 5, seed=2)
    weights = (0.4 * query.double() @ key.double().mT).softmax(dim=-1).mean(dim=1)
    expected = (shares.double()[:, None] @ weights)[:, 0]
    propagated = IMPLEMENTATIONS[method](shares, query, key, 0.4).double()
    torch.testing.assert_close(propagated, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("tile", [1, 16, 17, 2 * 17, 5 * 17, 17**2, 3 * 17**2, 10**6])
def test_tiles_of_any_size_give_the_same(tile, monkeypatch):
    monkeypatch.setattr(module, "CPU_TILE", tile)
    queries, keys = noise(3, 2, 5, 17, 7, seed=1), noise(3, 2, 5, 17, 7, seed=2)
    options = {"scale": 7**-0.5, "num_prefix": 2, "grid": (3, 5)}
    expected, _ = rollout_twin(queries, keys, **options)
    saliency = rollout(list(queries), list(keys), method="tiles", **options)
    np.testing.assert_allclose(saliency, expected, rtol=1e-5, atol=1e-8)


def test_each_thread_has_a_tile_of_whole_matrices_or_rows(monkeypatch):
    monkeypatch.setattr(module, "CPU_TILE", 50)
    monkeypatch.setattr(module, "DEVICE_TILE", 50)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert list(module._tiles(7, 5, cpu)) == [(slice(0, 4), slice(0, 5)), (slice(4, 8), slice(0, 5))]
    assert [matrices for matrices, _ in module._tiles(7, 5, gpu)] == [
        *(slice(first, first + 2) for first in (0, 2, 4, 6)),
    ]
    rows = [slice(first, first + 2) for first in range(0, 23, 2)]
    assert list(module._tiles(3, 23, cpu)) == [
        *((slice(0, 2), part) for part in rows),
        *((slice(2, 4), part) for part in rows),
    ]


def test_method_by_device_and_graph(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert (
        module.choose_implementation(cpu, compiled=True)
        == module.choose_implementation(cuda, compiled=False)
        == "tiles"
    )
    assert module.choose_implementation(cuda, compiled=True) == "flex"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert module.choose_implementation(cuda, compiled=True) == "tiles"


@pytest.mark.parametrize(("exporting", "expected"), [(False, True), (True, False)])
def test_an_exported_graph_stays_portable(exporting, expected, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: exporting)
    monkeypatch.setattr(
        module, "choose_implementation", lambda _device, *, compiled: asked.append(compiled) or "tiles"
    )
    tokens = [torch.zeros(1, 1, 5, 3)]
    rollout(tokens, tokens, scale=1.0, num_prefix=1, grid=(2, 2))
    assert asked == [expected]


@pytest.fixture(scope="module")
def real_pass():
    """Queries and keys of DeiT-Tiny on 16 images of birds, and the options of their rollout."""
    needs(DEIT_TINY, CUB50)
    records = read_cub(CUB50).of_split("test")[::87]
    config = ModelConfig("deit_tiny_patch16_224", num_classes=50, weights=DEIT_TINY)
    model = build_model(config).eval()
    preprocessing = Preprocessing(256, (224, 224))
    views = [
        make_view(*read_resized(record.path, Reading(256)), preprocessing, config.input_size)
        for record in records
    ]
    with torch.no_grad():
        features = model.encoder(model.encoder.normalize(torch.stack([view.image for view in views])), 0)
    scale = features.attention[0].scale
    options = {"scale": scale, "num_prefix": features.num_prefix, "grid": features.grid}
    return features, options


@pytest.mark.slow
@pytest.mark.realdata
@every_method
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_real_saliency_and_its_boxes(real_pass, method, dtype, tolerance):
    features, options = real_pass
    queries = [call.query.to(dtype) for call in features.attention]
    keys = [call.key.to(dtype) for call in features.attention]
    expected, _ = rollout_twin([q.float() for q in queries], [k.float() for k in keys], **options)
    saliency = rollout(queries, keys, method=method, **options)
    np.testing.assert_allclose(saliency, expected, rtol=tolerance)
    boxes = propose_regions(saliency, 224).boxes
    assert torch.equal(boxes, propose_regions(torch.from_numpy(expected), 224).boxes)
    assert len(boxes.unique(dim=0)) > 10  # images differ, and so do their regions


@pytest.mark.parametrize("rows", ["all", "class"])
def test_rollout_of_weights_is_that_of_queries_and_keys(rows):
    queries, keys = (noise(3, 2, 2, 7, 4, seed=seed).unbind(0) for seed in (0, 1))
    weights = [(query @ key.mT).softmax(dim=-1).mean(dim=1) for query, key in zip(queries, keys, strict=True)]
    options = {"num_prefix": 1, "grid": (2, 3), "rows": rows}
    expected = rollout(queries, keys, scale=1.0, **options)
    torch.testing.assert_close(rollout_weights(weights, **options), expected)

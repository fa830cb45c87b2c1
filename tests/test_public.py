"""What others build upon: names, signatures, and the direction of imports."""

import ast
import inspect
from pathlib import Path

import pytest
import torch

import ramstrans

LEVELS = {
    "errors": 0,
    "files": 1,
    "console": 1,
    "plain": 1,
    "devices": 1,
    "data": 2,
    "models": 3,
    "saved": 4,
    "evaluation": 5,
    "training": 6,
    "inference": 6,
    "doctor": 6,
    "arguments": 6,
    "bench": 7,
    "commands": 8,
    "cli": 9,
    "__main__": 10,
}
"""A module may import from its own part of the package and from lower levels."""

PACKAGE = Path(ramstrans.__file__).parent


@pytest.mark.parametrize("name", ramstrans.__all__)
def test_every_public_name_is_there(name):
    assert getattr(ramstrans, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = ramstrans.Nonsense


def test_signatures_are_as_promised():
    rollout = inspect.signature(ramstrans.rollout).parameters
    assert list(rollout)[:2] == ["queries", "keys"]
    assert {"scale", "num_prefix", "grid", "rows"} <= set(rollout)
    assert rollout["rows"].default == "all"
    regions = inspect.signature(ramstrans.propose_regions).parameters
    assert list(regions)[:3] == ["saliency", "image_size", "threshold"]
    assert regions["threshold"].default == 1.2
    assert list(inspect.signature(ramstrans.zoom).parameters) == ["images", "boxes", "size"]
    assert ramstrans.Regions._fields == ("boxes", "has_region")
    assert ramstrans.ScaleOutput._fields == ("logits", "saliency", "boxes", "has_region")
    assert next(iter(inspect.signature(ramstrans.Predictor.load).parameters)) == "folder"


def test_a_model_in_three_lines():
    config = ramstrans.ModelConfig(
        backbone="vit_tiny_patch16_224",
        num_classes=5,
        image_size=32,
        num_scales=2,
        weights=None,
        backbone_options={"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    )
    output = ramstrans.build_model(config).eval()(torch.zeros(3, 3, 32, 32))
    assert isinstance(output, ramstrans.RamsOutput)
    assert len(output.scales) == 2
    for scale in output.scales:
        assert scale.logits.shape == (3, 5)
        assert scale.saliency.shape == (3, 4, 4)
        assert scale.boxes.shape == (3, 4)
        assert scale.has_region.shape == (3,)
    assert output.fused.sum(dim=1).tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_run_one_way(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    nodes = ast.walk(ast.parse(path.read_text()))
    imported = {node.module.split(".")[1] for node in nodes if is_ours(node)}
    for other in imported - {own}:
        assert LEVELS[other] < LEVELS[own], f"{own} imports {other}"


def is_ours(node):
    return isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ramstrans.")


def test_every_part_has_its_level():
    parts = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in PACKAGE.rglob("*.py")}
    assert parts - {"__init__"} == set(LEVELS)

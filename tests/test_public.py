"""What others build upon: names, signatures, keys of JSON files, and the direction of imports."""

import ast
import inspect
import json
import re
from pathlib import Path

import pytest
import torch

import ramstrans
from ramstrans.cli import main
from tests.tiny import BACKBONE, TINY

LEVELS = {
    "errors": 0,
    "interrupts": 0,
    "files": 1,
    "console": 1,
    "cores": 0,
    "plain": 1,
    "options": 1,
    "yaml_keys": 1,
    "hub": 1,
    "calibration": 2,
    "distributed": 2,
    "data": 3,
    "models": 4,
    "saved": 5,
    "evaluation": 6,
    "training": 7,
    "inference": 7,
    "doctor": 7,
    "sharing": 7,
    "bench": 8,
    "export": 9,
    "compare": 10,
    "serve": 10,
    "commands": 11,
    "cli": 12,
    "__main__": 13,
}
"""A module may import from its own part of the package and from lower levels."""

PACKAGE = Path(ramstrans.__file__).parent


@pytest.mark.parametrize("name", ramstrans.__all__)
def test_every_public_name_is_there(name):
    assert getattr(ramstrans, name).__doc__


@pytest.mark.parametrize("name", ramstrans._PUBLIC)
def test_every_public_name_is_documented(name):
    page = (PACKAGE.parents[1] / "docs" / "api.md").read_text()
    assert re.search(rf"^\.\. auto\w+:: ramstrans\.{name}$", page, re.MULTILINE)


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
    assert ramstrans.Stage._fields == (*("logits", "feature", "crop_box", "saliency", "boxes", "has_region"),)
    assert next(iter(inspect.signature(ramstrans.Predictor.load).parameters)) == "folder"


def test_a_model_in_three_lines():
    config = ramstrans.ModelConfig(BACKBONE, num_classes=5, image_size=32, backbone_options=TINY)
    output = ramstrans.build_model(config).eval()(torch.zeros(3, 3, 32, 32))
    assert isinstance(output, ramstrans.Output)
    assert len(output.scales) == 2
    for scale in output.scales:
        assert scale.logits.shape == (3, 5)
        assert scale.saliency.shape == (3, 4, 4)
        assert scale.boxes.shape == (3, 4)
        assert scale.has_region.shape == (3,)
    assert output.fused.sum(dim=1).tolist() == pytest.approx([1, 1, 1])


REPORT_KEYS = {
    *("num_images", "scales", "fused", "zoom_gain", "regions", "regions_by_scale", "confused", "classes"),
    *("split", "warnings", "command", "config", "chosen_on", "epoch", "steps", "seconds"),
    *("num_skipped", "stopped_early", "method", "regions_used", "versions"),
}
CONFIG_KEYS = {
    *("format_version", "ramstrans_version", "model", "class_names", "preprocessing", "training"),
    *("early_exit", "label_thresholds"),
}
PREDICTION_KEYS = {"path", "error", "labels", "probabilities", "scales", "unknown", "unknown_score", "set"}
PREDICTION_KEYS |= {"answer", "priors"}
SCALE_KEYS = {"labels", "probabilities", "box", "has_region"}


def test_keys_of_json_files_are_as_promised(trained, colors, capsys):
    """Programs read them: none may go or change its name, and a new one is added here too."""
    for name, keys in {"report.json": REPORT_KEYS, "config.json": CONFIG_KEYS}.items():
        assert json.loads((trained.folder / name).read_text()).keys() == keys, name
    arguments = ["--format", "jsonl", "--top_k", "2", "--device", "cpu"]
    assert main(["predict", str(trained.folder), str(colors / "test"), "missing.jpg", *arguments]) == 3
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["error"] is None for row in rows] == [True] * 6 + [False]
    assert all(row.keys() == PREDICTION_KEYS for row in rows)
    assert all(scale.keys() == SCALE_KEYS for row in rows for scale in row["scales"])


def imports_of(path):
    """Modules of the package that a file imports anywhere in it, for types only or inside a function too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports are not followed here"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= submodules or {node.module}
    return found & set(MODULES)


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.fixture(scope="module")
def graph():
    """The modules that each module imports."""
    return {name: imports_of(path) for name, path in MODULES.items()}


def part_of(module):
    return next(iter(module.split(".")[1:]), None)


def test_imports_between_parts_run_one_way(graph):
    wrong = [
        f"{name} imports {other}"
        for name, imported in graph.items()
        for other in imported
        if None not in (own := part_of(name), its := part_of(other)) and own != its
        if LEVELS[its] >= LEVELS[own]
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle(graph):
    reached = {name: reachable(name, graph) for name in graph}
    cycles = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in graph
        if name in reached[name]
    }
    assert cycles == set()


def reachable(name, graph):
    """Modules that some module imports directly or indirectly; itself only if it is on a cycle."""
    found, waiting = set(), list(graph[name])
    while waiting:
        if (module := waiting.pop()) not in found:
            found.add(module)
            waiting += graph[module]
    return found


def test_every_part_has_its_level():
    assert {part_of(name) for name in MODULES} - {None} == set(LEVELS)

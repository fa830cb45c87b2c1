"""Export a small model of every family of timm as ONNX, and write the table of docs/export.md.

    python scripts/exports.py docs/evidence/exports.jsonl 100  # for 100 seconds; goes on where it stopped
    python scripts/exports.py docs/evidence/exports.jsonl --write  # only writes the table

A family is a class of timm's models; its smallest member is built with two scales, random weights and the
smallest input that it takes. Its graph runs in onnxruntime with another batch than it was traced with, and is
compared with the model in PyTorch.
"""

import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import timm
import torch
from backbones import config_of
from torch import nn

from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import RamsTransError
from ramstrans.export.formats import write_graph
from ramstrans.export.graph import Graph
from ramstrans.export.runner import OUTPUTS, open_graph
from ramstrans.export.verify import PIXEL
from ramstrans.models.methods.build import build_model
from ramstrans.models.methods.method import Method
from ramstrans.saved.metadata import ModelMetadata

PAGE = Path(__file__).parents[1] / "docs/export.md"
MARK, END = "<!-- families -->", "<!-- end of families -->"
NAMES = tuple("abcde")
BATCH = 3


def find_families(keep: Any) -> None:  # noqa: ANN401 - a function
    """Note the smallest model of each class of timm's, by counting weights without values."""
    smallest: dict[str, tuple[int, str]] = {}
    for name in timm.list_models():
        try:
            with torch.device("meta"):
                model = timm.create_model(name)
        except Exception as error:  # noqa: BLE001 - whatever timm raises is the result
            print(f"{name}: {type(error).__name__}: {error}")
            continue
        found = sum(weight.numel() for weight in model.parameters()), name
        family = type(model).__name__
        smallest[family] = min(found, smallest.get(family, found))
    for family, (count, name) in sorted(smallest.items()):
        keep({"kind": "family", "family": family, "name": name, "parameters": count})


def try_export(family: dict[str, Any]) -> dict[str, Any]:
    """What happens to a family's model, as plain values."""
    row: dict[str, Any] = {"kind": "export", "family": family["family"], "name": family["name"]}
    try:
        graph, size = build_graph(family["name"])
        row |= {"saliency": graph.model.saliency_name, "side": size[0] // 2}
        with tempfile.TemporaryDirectory() as folder:
            write_graph(graph, size, Path(folder), "onnx")
            return row | compare(graph, size, Path(folder))
    except RamsTransError as error:
        return row | {"refused": str(error)[:300]}
    except Exception as error:  # noqa: BLE001 - whatever a library raises is the result
        return row | {"refused": f"{type(error).__name__}: {error}"[-1500:]}


def build_graph(name: str) -> tuple[Graph, tuple[int, int]]:
    """A model with two scales and weights of which all count, and `(height, width)` of its pixels."""
    torch.manual_seed(0)
    config = config_of(name)
    config = type(config)(
        backbone=name,
        num_classes=len(NAMES),
        image_size=config.image_size,
        zoom_source="full",
        thresholds=(1.0, 1.0),
    )
    model = build_model(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.min() == weight.max() and weight.max().abs() < 0.1:
                weight.normal_(std=0.1)  # zeros, or layer scales of 1e-6, would hide what is behind them
        images = blobs(16, config.input_size).float()
        take_statistics(model, images)
        pooled = model.encoder(model.encoder.normalize(images), 0, num_layers=0).pooled
        centre_logits(model, pooled)
    size = (2 * config.input_size[0], 2 * config.input_size[1])
    return Graph(model, ModelMetadata(config, NAMES, Preprocessing(size, size, "squash"))), size


def take_statistics(model: Method, images: torch.Tensor) -> None:
    """Give every batch norm the statistics of these images.

    They are taken whole: behind norms that still expect a variance of nearly 1 the features of all images
    come to differ by no more than rounding does, and a difference of outputs says nothing.
    """
    for module in model.modules():
        if isinstance(getattr(module, "running_var", None), torch.Tensor):
            module.momentum = 1.0
    model.encoder.model.train()
    model.encoder.model(model.encoder.normalize(images))
    model.eval()


def centre_logits(model: Method, pooled: torch.Tensor) -> None:
    """Change the head such that logits of some features have mean 0 and deviation 1: no class always wins.

    It is multiplied by at most 100: more would show the rounding of features that are nearly all alike.
    """
    logits = model.encoder.forward_head(pooled)
    scale = 1 / logits.std(dim=0).mean().clamp(min=1e-2)
    head = model.encoder.get_classifier()
    for layer in head.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            for weight in layer.parameters():
                weight.mul_(scale)
            layer.bias.sub_(scale * logits.mean(dim=0))


def blobs(count: int, size: tuple[int, int]) -> torch.Tensor:
    """Photographs (count, 3, *size) uint8 of smooth noise."""
    noise = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    return (nn.functional.interpolate(noise, size, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


def compare(graph: Graph, size: tuple[int, int], folder: Path) -> dict[str, Any]:
    """Differences between the model and its file."""
    pixels = blobs(BATCH, size)
    with torch.inference_mode():
        expected = dict(zip(graph.output_names, (output.numpy() for output in graph(pixels)), strict=True))
    found = open_graph(folder)(pixels.numpy())
    off = [np.abs(expected[name] - found[name]).max() for name in OUTPUTS[:2]]
    row = {"difference": float(max(off)), "spread": float(np.ptp(expected[OUTPUTS[1]], axis=1).max())}
    if "boxes" in expected:
        same = np.abs(expected["boxes"] - found["boxes"]).max(axis=-1) <= PIXEL
        row |= {"boxes_equal": float(same.mean()), "found": float(expected["found"].mean())}
    return row


def table(rows: list[dict[str, Any]], num_families: int) -> list[str]:
    """The table in Markdown, a line per family, then those that do not export."""
    good = [row for row in rows if "difference" in row]
    bad = [row for row in rows if "difference" not in row]
    versions = f"timm {timm.__version__}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    lines = [
        f"`python scripts/exports.py docs/evidence/exports.jsonl`, {versions}: of {num_families} families "
        f"{len(rows)} were tried; {len(good)} export.",
        "",
        "| family (smallest model) | regions by | pixels | largest difference | spread | boxes equal |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(good, key=lambda row: row["family"]):
        lines.append(
            f"| {row['family']} (`{row['name']}`) | {row['saliency']} | {row['side']} | "
            f"{row['difference']:.0e} | {row['spread']:.2g} | {100 * row['boxes_equal']:.0f} % |"
        )
    lines += ["", "| does not export | reason |", "|---|---|"] if bad else []
    for row in sorted(bad, key=lambda row: row["family"]):
        reason = " ".join(row["refused"].replace("|", "/").split())[:200]
        lines.append(f"| {row['family']} (`{row['name']}`) | {reason} |")
    return lines


def main() -> None:
    """Export what was not exported yet, then write the table."""
    warnings.simplefilter("ignore")
    log = Path(sys.argv[1])
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    with log.open("a") as file:

        def keep(row: dict[str, Any]) -> None:
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()

        if "--write" not in sys.argv:
            if not rows:
                find_families(keep)
            end = time.monotonic() + float(sys.argv[2] if len(sys.argv) > 2 else "inf")
            tried = {row["family"] for row in rows if row["kind"] == "export"}
            families = [row for row in rows if row["kind"] == "family" and row["family"] not in tried]
            for family in sorted(families, key=lambda row: row["parameters"]):
                if time.monotonic() < end:
                    keep(try_export(family))
    num_families = sum(row["kind"] == "family" for row in rows)
    lines = table([row for row in rows if row["kind"] == "export"], num_families)
    before, _, rest = PAGE.read_text().partition(MARK)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{MARK}\n\n" + "\n".join(lines) + f"\n\n{END}{after}")


if __name__ == "__main__":
    main()

"""Try every image classifier of timm as a backbone, and write the table of docs/backbones.md.

    python scripts/backbones.py tried.jsonl            # an hour on one core; goes on where it stopped
    python scripts/backbones.py tried.jsonl --write    # only writes the table

Every model is built with two scales, computes regions and takes a training step with tensors that have shapes
but no values. The smallest model of each family also does so with numbers: its outputs with one
scale are compared with timm's own, and its feature map with timm's `forward_intermediates`.
"""

import json
import sys
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ramstrans.errors import RamsTransError
from ramstrans.models.backbones import build_backbone
from ramstrans.models.config import ModelConfig
from ramstrans.models.encoder import Encoder
from ramstrans.models.methods.build import build_model
from ramstrans.models.methods.rams import RamsTrans

PAGE = Path(__file__).parents[1] / "docs/backbones.md"
MARK = "<!-- table -->"
SIDES = (64, 56, 96, 112, 128, 160, 192, 196, 224, 256)
"""Tried one after the other: the first that a model takes; then its own size."""
BEHIND = {"NormFreeNet", "XceptionAligned"}
"""Families whose features have passed layers behind the last stage: a convolution, an activation."""
MAX_REAL = 60e6
"""Parameters of a model that is built with numbers."""


def try_model(name: str) -> dict[str, Any]:
    """What happens to a model as a backbone."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    row: dict[str, Any] = {"name": name}
    try:
        config = config_of(name)
        row["side"] = config.image_size
        with torch.device("meta"):
            model = build_model(config)
        row["parameters"] = sum(weight.numel() for weight in model.parameters())
        row["family"] = type(model.encoder.model).__name__
        with FakeTensorMode():
            for part in model.modules():  # once each, also those that are part of several
                part._apply(
                    lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu"), recurse=False
                )
            step(model, torch.empty(2, 3, *config.input_size))
        if row["parameters"] < MAX_REAL:
            model = build_model(config)
            row["saliency"] = model.saliency_name
        row["pooling"] = model.encoder.pooling
        row["class_tokens"] = model.encoder.class_tokens
        row["is_fixed"] = bool(timm.get_pretrained_cfg(name).fixed_input_size)
    except RamsTransError as error:
        row["refused"] = str(error)
    except Exception as error:  # noqa: BLE001 - whatever timm or torch raises is the result
        row["failed"] = f"{type(error).__name__}: {error}"[:300]
    return row


def config_of(name: str) -> ModelConfig:
    """A config with the smallest side that a model takes.

    Raises:
        RamsTransError: None of them.
    """
    own = timm.get_pretrained_cfg(name).input_size[1]
    for side in (*SIDES, own):
        config = ModelConfig(backbone=name, num_classes=5, image_size=side)
        try:
            with torch.device("meta"):
                build_model(config)
        except RamsTransError as error:
            last = error
            if "cannot work" in str(error):
                break
        else:
            return config
    raise last


def step(model: RamsTrans, images: torch.Tensor) -> list[torch.Tensor]:
    """Compute all scales in training mode and descend their losses once; the logits."""
    model.train()
    logits = []
    for stage in model.stages(images):
        loss = stage.logits.float().logsumexp(dim=1).sum()
        loss.backward()
        logits.append(stage.logits)
    assert len(logits) == 2
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    return logits


def try_numbers(name: str) -> str:
    """A training step with numbers, and comparisons with timm; what was found, in words."""
    torch.manual_seed(0)
    config = config_of(name)
    images = torch.randn(2, 3, *config.input_size)
    backbone = build_backbone(config).eval()
    for module in backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(std=0.1)  # or a norm that is left out would not show
            module.running_var.uniform_(0.8, 1.2)
    with torch.no_grad():
        expected = backbone(images)
        encoder = Encoder(backbone, 1, size=config.input_size).eval()
        features = encoder(images, 0)
        difference = (encoder.forward_head(features.pooled) - expected).abs().max().item()
    assert difference < 1e-4 * (1 + expected.abs().max().item()), (
        f"logits differ from timm's by {difference:.1e}"
    )
    said = ["logits are timm's"]
    try:
        with torch.no_grad():
            last = backbone.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)[-1]
    except (AttributeError, AssertionError, TypeError, RuntimeError):
        last = None
    is_last = type(backbone).__name__ not in BEHIND
    if is_last and last is not None and last.flatten(2).mT.shape == features.locations.shape:
        scale = 1 + features.locations.abs().max().item()
        same = torch.allclose(last.flatten(2).mT, features.locations, rtol=1e-3, atol=1e-4 * scale)
        assert same, "locations differ from timm's forward_intermediates"
        said.append("feature map is timm's")
    model = build_model(config)
    assert all(logits.isfinite().all() for logits in step(model, images))
    model.eval()
    with torch.no_grad():
        output = model(images)
    assert output.fused.isfinite().all()
    boxes = output.scales[0].boxes
    assert boxes is not None
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    return ", ".join(said)


def table(rows: list[dict[str, Any]], numbers: dict[str, str]) -> list[str]:
    """The table in Markdown, a line per family, then what was refused."""
    families = defaultdict(list)
    for row in rows:
        if "family" in row and "refused" not in row and "failed" not in row:
            families[row["family"]].append(row)
    good = sum(map(len, families.values()))
    lines = [
        f"timm {timm.__version__}: {good} of {len(rows)} models ({100 * good / len(rows):.1f} %) build, "
        f"propose regions and take a training step; {len(families)} families.",
        "",
        "| family | models | parameters (M) | the head reads | regions by (`auto`) | sizes | with numbers |",
        "|---|---|---|---|---|---|---|",
    ]
    for family, members in sorted(families.items()):
        members.sort(key=lambda row: row["parameters"])
        low, high = (members[index]["parameters"] / 1e6 for index in (0, -1))
        example = members[0]["name"]
        cells = [
            f"{family} (`{example}`)",
            str(len(members)),
            f"{low:.1f}" + (f" to {high:.0f}" if len(members) > 1 else ""),
            joined(row["pooling"] for row in members),
            joined(row["saliency"] for row in members if "saliency" in row) or "as smaller ones",
            "fixed by `image_size`" if any(row["is_fixed"] for row in members) else "any",
            numbers.get(family, "not tried"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    reasons = defaultdict(list)
    for row in rows:
        reason = row.get("refused") or row.get("failed")
        if reason:
            reasons[short(reason, row["name"])].append(row["name"])
    lines += ["", "Refused, with the reason:", "", "| models | reason |", "|---|---|"]
    for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
        shown = ", ".join(f"`{name}`" for name in names[:4])
        lines.append(f"| {len(names)}: {shown}{', ...' if len(names) > 4 else ''} | {reason} |")
    return lines


def joined(values: Any) -> str:  # noqa: ANN401
    """Different values, most frequent first."""
    values = list(values)
    return ", ".join(sorted(dict.fromkeys(values), key=lambda value: -values.count(value)))


def short(reason: str, name: str) -> str:
    """A reason without the model's own name and sizes."""
    return reason.replace(f"'{name}'", "it").replace(name, "it").replace("|", "/").split("; take")[0][:160]


def main() -> None:
    """Try what was not tried yet, then write the table."""
    warnings.simplefilter("ignore")
    log = Path(sys.argv[1])
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    tried = {row["name"] for row in rows}
    with log.open("a") as file:

        def keep(row: dict[str, Any]) -> None:
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()

        if "--write" not in sys.argv:
            for name in timm.list_models():
                if name not in tried:
                    keep(try_model(name))
            smallest: dict[str, dict[str, Any]] = {}
            for row in rows:
                if "family" in row and row["parameters"] < smallest.get(row["family"], row)["parameters"] + 1:
                    smallest[row["family"]] = row
            for family, row in smallest.items():
                if f"numbers of {family}" not in tried:
                    try:
                        result = try_numbers(row["name"])
                    except Exception as error:  # noqa: BLE001
                        result = f"**{type(error).__name__}: {error}**"[:200]
                    keep({"name": f"numbers of {family}", "numbers": result})
    numbers = {row["name"].removeprefix("numbers of "): row["numbers"] for row in rows if "numbers" in row}
    lines = table([row for row in rows if "numbers" not in row], numbers)
    head = PAGE.read_text().split(MARK)[0] if PAGE.is_file() else "# Backbones\n\n"
    PAGE.write_text(head + MARK + "\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

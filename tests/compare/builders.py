"""Made-up plans and finished runs: folders as `train` leaves them, as far as a comparison reads them."""

import json
from pathlib import Path

import numpy as np
import yaml

from ramstrans.compare.plan import build_plan
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.models.config import ModelConfig
from ramstrans.plain import csv_text
from ramstrans.saved.metadata import CONFIG_FILE, ModelMetadata, metadata_to_json
from tests.tiny import BACKBONE, TINY

CLASSES = ("crow", "nan", "wren")

PROGRAM = Path(__file__).parent / "program.py"
"""Stands in for `ramstrans`: a `train` that takes no time."""


def plan_of(methods=("plain", "two"), seeds=(0, 1), **changes):
    """A plan; methods by name have 1, 2, ... scales."""
    values = {
        "data": {"birds": {"root": "birds"}},
        "methods": methods
        if isinstance(methods, dict)
        else {name: {"model.num_scales": number} for number, name in enumerate(methods, start=1)},
        "seeds": list(seeds),
    }
    return build_plan(yaml.safe_load(yaml.safe_dump(values | changes, sort_keys=False)))


def write_finished(folder, right, *, scales=(), num_images=None, seconds=60.0, log=(), num_scales=None):
    """A finished run: (N,) whether each image is right, fused and for each scale."""
    folder.mkdir(parents=True)
    scales = scales or (right,)
    num_scales = num_scales or len(scales)
    header = ["path", "true", "predicted", *(f"scale_{n}_label" for n in range(1, len(scales) + 1))]
    rows = []
    for index in reversed(range(len(right))):  # in another order than by path
        true = CLASSES[index % 3]
        wrong = CLASSES[(index + 1) % 3]
        answers = [true if is_right[index] else wrong for is_right in (right, *scales)]
        rows.append([f"{index:03}.jpg", true, *answers])
    (folder / "predictions.csv").write_text(csv_text([header, *rows]))
    region = {
        "mean_area": 20.0,
        "mean_iou": 50.0,
        "corloc": 60.0,
        "parts_inside": None,
        "fallback_share": 0.0,
    }
    report = {
        "fused": {"top1": 100 * float(np.mean(right))},
        "scales": [{"top1": 100 * float(np.mean(one))} for one in scales],
        "regions_by_scale": [region] * len(scales),
        "seconds": seconds,
        "epoch": 2,
    }
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    model = ModelConfig(BACKBONE, backbone_options=TINY, image_size=24, num_scales=num_scales, num_classes=3)
    metadata = ModelMetadata(model, CLASSES, Preprocessing(28, (24, 24)))
    (folder / CONFIG_FILE).write_text(metadata_to_json(metadata))


def right(share, num_images=40, seed=0):
    return np.random.default_rng(seed).random(num_images) < share


def finished(folders, plan, shares, **options):
    """Write all runs: each method has its share of right answers."""
    for run in plan.runs:
        seed = 100 * run.seed + len(run.contender)
        write_finished(folders.run(run), right(shares[run.contender], seed=seed), **options)

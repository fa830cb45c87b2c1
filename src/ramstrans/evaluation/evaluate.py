"""Judge a model on one split: predictions, report, pictures."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ramstrans.data.config import DataConfig
from ramstrans.data.loading.dataset import ImageDataset, collate
from ramstrans.data.loading.loader import build_loader
from ramstrans.data.reading.decode import decode_image
from ramstrans.data.records import Record
from ramstrans.devices import process_index
from ramstrans.evaluation.early_exit import exit_report, plot_exit, time_exit
from ramstrans.evaluation.predict import autocast, boxes_in_originals, normalized, predict_split
from ramstrans.evaluation.predictions import Predictions
from ramstrans.evaluation.report.build import Report, build_report, write_report
from ramstrans.evaluation.report.crops import crop_picture
from ramstrans.evaluation.report.curves import plot_confusion, plot_curves
from ramstrans.evaluation.report.gallery import GalleryItem, plot_gallery
from ramstrans.models.methods.rams import RamsTrans
from ramstrans.saved.model import ModelMetadata

GALLERY_SIZE = 6
"""Right ones, and wrong ones, in the gallery; drawn by a fixed seed, not picked."""


def evaluate(
    model: RamsTrans,
    metadata: ModelMetadata,
    dataset: ImageDataset,
    folder: Path,
    *,
    precision: str,
    batch_size: int,
    num_workers: int = 0,
    read_timeout: float = DataConfig.read_timeout,
    confidence: float | None = None,
    extra: Mapping[str, Any],
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Report:
    """Predict every image of a split, and write report.json, report.md and pictures into a folder.

    Several processes share the predictions; the first one writes.

    Args:
        model: On its device.
        metadata: Class names and preprocessing.
        dataset: The split, without augmentation.
        folder: Where to write; its metrics.jsonl, if any, gives the curves.
        precision: `fp32`, `bf16` or `fp16`.
        batch_size: Images at once.
        num_workers: Loader processes.
        read_timeout: Seconds that a batch may take to load; 0: any time.
        confidence: Of early exit, which is judged and timed too where it is given.
        extra: Further keys of the report, see `build_report`.
        progress: Told after each batch.

    Returns:
        The report.
    """
    device = next(model.parameters()).device
    with_high_res = model.zoom_source == "full" and model.num_scales > 1
    loader = build_loader(
        dataset,
        batch_size,
        shuffle=False,
        with_high_res=with_high_res,
        num_workers=num_workers,
        timeout=read_timeout,
    )
    predictions, sizes = predict_split(
        model, loader, metadata.preprocessing, device, precision=precision, progress=progress
    )
    pictures = {}
    if confidence is not None:
        options: dict[str, Any] = {"confidence": confidence, "precision": precision, "progress": progress}
        times = time_exit(model, loader, metadata.preprocessing, device, **options)
        extra = {"early_exit": exit_report(predictions, confidence, times), **extra}
        plot_exit(predictions, confidence, folder / "early_exit.png")
        pictures["What early exit costs and saves"] = "early_exit.png"
    report = build_report(predictions, metadata.class_names, sizes, extra=extra)
    if process_index() == 0:
        pictures |= draw_pictures(model, metadata, dataset, predictions, folder, precision)
        write_report(folder, report, pictures)
    return report


def draw_pictures(
    model: RamsTrans,
    metadata: ModelMetadata,
    dataset: ImageDataset,
    predictions: Predictions,
    folder: Path,
    precision: str,
) -> dict[str, str]:
    """Draw curves, if the folder has metrics.jsonl, gallery and confusion; caption -> name of the file."""
    pictures = {}
    if (folder / "metrics.jsonl").exists():
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        plot_curves(rows, folder / "curves.png")
        pictures["How the training went"] = "curves.png"
    items = [
        gallery_item(model, metadata, dataset, index, precision)
        for index in gallery_choice(predictions, GALLERY_SIZE)
    ]
    plot_gallery(items, folder / "gallery.png")
    pictures["Right and wrong answers, drawn at random"] = "gallery.png"
    plot_confusion(predictions.fused, predictions.labels, metadata.class_names, folder / "confusion.png")
    pictures["The most confused classes"] = "confusion.png"
    return pictures


def gallery_choice(predictions: Predictions, count: int) -> list[int]:
    """Indices of up to `count` images that were answered rightly, and as many wrongly, by a fixed draw."""
    is_right = predictions.fused.argmax(axis=1) == predictions.labels
    order = np.random.default_rng(0).permutation(len(is_right))
    right, wrong = order[is_right[order]][:count], order[~is_right[order]][:count]
    return [int(index) for index in (*right, *wrong)]


@torch.no_grad()
def gallery_item(
    model: RamsTrans, metadata: ModelMetadata, dataset: ImageDataset, index: int, precision: str
) -> GalleryItem:
    """Look at one image again, for its picture."""
    record: Record = dataset.records[index]
    batch = collate([dataset[0, index]], with_high_res=model.zoom_source == "full")
    device = next(model.parameters()).device
    images, high_res = normalized(batch, metadata.preprocessing, device)
    with autocast(device, precision):
        output = model(images, high_res)
    first = output.scales[0]
    assert first.saliency is not None, "in eval mode every scale has a saliency"
    assert first.boxes is not None, "in eval mode every scale has a region"
    names, answers = metadata.class_names, output.fused[0]
    height, width = metadata.model.input_size
    crop_box = batch.geometries[0].to_original(np.array([0, 0, width, height]))
    return GalleryItem(
        image=decode_image(record.path, max_pixels=dataset.max_pixels),
        saliency=first.saliency[0].cpu().numpy(),
        saliency_frame=_box(crop_box),
        box=_box(boxes_in_originals(output, batch)[0, 0]),
        true_box=record.box,
        crop=crop_picture(batch, first.boxes, metadata.model.scale_sizes[-1]),
        true_name=names[record.label],
        predicted_name=names[int(answers.argmax())],
        probability=float(answers.max()),
        scale_predictions=[
            f"{names[int(scale.argmax())]} {100 * float(scale.max()):.0f} %"
            for scale in output.probabilities[:, 0]
        ],
    )


def _box(corners: np.ndarray) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(corner) for corner in corners)
    return x0, y0, x1, y1

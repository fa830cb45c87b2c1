"""Compare models: accuracy if it is known, counted work, and measured time."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from rich.table import Table

from ramstrans.bench.flops import macs_of
from ramstrans.bench.report import format_ratio
from ramstrans.bench.timing import Candidate, Quartiles, interleave, quartiles
from ramstrans.console import Progress, no_progress
from ramstrans.data.preprocessing import Size
from ramstrans.distributed import autocast
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.boxes import whole_image
from ramstrans.models.methods.build import build_model


class ModelSpec(NamedTuple):
    """A model to measure, with random weights, which cost the same as trained ones.

    Attributes:
        config: The model, its number of classes included.
        crop: `(height, width)` in pixels of the image that regions are cut from with `zoom_source="full"`.
        top1: Accuracy on the test split in percent; None if it is not known.
        num_scales: The first so many of its scales are used; None: all.
        precision: Of autocast; None: that of all.
    """

    config: ModelConfig
    crop: Size
    top1: float | None = None
    num_scales: int | None = None
    precision: str | None = None


class ModelResult(NamedTuple):
    """The cost of one image.

    Attributes:
        name: Name of the model.
        spec: The model.
        macs: Multiply-adds per image.
        seconds: Seconds per image, in a batch.
        ratio: Those seconds divided by the first model's, round by round.
    """

    name: str
    spec: ModelSpec
    macs: int
    seconds: Quartiles
    ratio: Quartiles

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        config = self.spec.config
        return {
            "name": self.name,
            "method": config.method,
            "backbone": config.backbone,
            "scale_sizes": config.scale_sizes,
            "zoom_source": config.zoom_source,
            "top1": self.spec.top1,
            "gmacs": self.macs / 1e9,
            "gflops": 2 * self.macs / 1e9,
            "seconds": self.seconds._asdict(),
            "ratio": self.ratio._asdict(),
        }


def measure_models(
    specs: Mapping[str, ModelSpec],
    device: torch.device,
    *,
    batch_size: int = 32,
    precision: str = "fp32",
    num_rounds: int = 5,
    progress: Progress = no_progress,
) -> list[ModelResult]:
    """Time inference of models in turn, on random images.

    Args:
        specs: Models by name; the others are compared with the first.
        device: Where to compute.
        batch_size: Images per call.
        precision: Autocast precision of those that have none of their own.
        num_rounds: How often to time each.
        progress: Called after each round.
    """
    candidates = {
        name: inference(spec, device, batch_size, spec.precision or precision) for name, spec in specs.items()
    }
    times = interleave(candidates, num_rounds, device, progress=progress)
    first = next(iter(times.values()))
    return [
        ModelResult(
            name,
            spec,
            macs_of(spec.config, spec.num_scales),
            quartiles([seconds / batch_size for seconds in times[name]]),
            quartiles([seconds / other for seconds, other in zip(times[name], first, strict=True)]),
        )
        for name, spec in specs.items()
    ]


def inference(spec: ModelSpec, device: torch.device, batch_size: int, precision: str) -> Candidate:
    """Build a model and a random batch, with high-resolution images if regions are cut from those."""
    model = build_model(spec.config).to(device).eval()
    model.limit_scales(spec.num_scales or model.num_scales)
    images = torch.randn(batch_size, 3, *spec.config.input_size, device=device)
    high_res = torch.randn(batch_size, 3, *spec.crop, device=device) if model.needs_high_res else None
    boxes = whole_image(images)

    def run() -> object:
        with torch.inference_mode(), autocast(device, precision):
            return model(images, high_res, last_region=False, boxes=boxes)

    return Candidate(run, batch_size)


def models_table(results: Sequence[ModelResult]) -> Table:
    """Make a row per model."""
    table = Table(
        "model", title="Inference per image; ratio: median over rounds", title_justify="left", box=None
    )
    for heading in ("looks", "top-1, %", "GMACs", "time", "ratio", "quartiles"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, spec, macs, seconds, ratio in results:
        sizes = (
            str(height) if height == width else f"{height}x{width}"
            for height, width in spec.config.look_sizes
        )
        table.add_row(
            name,
            " ".join(sizes),
            "" if spec.top1 is None else f"{spec.top1:.1f}",
            f"{macs / 1e9:.2f}",
            f"{1e3 * seconds.median:,.1f} ms",
            format_ratio(ratio.median),
            f"{format_ratio(ratio.low)} - {format_ratio(ratio.high)}",
        )
    return table

"""Models side by side: what each takes for an image, and how often it is right."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table

from ramstrans.bench.flops import macs_of
from ramstrans.bench.machine import describe_machine
from ramstrans.bench.report import short, write_json
from ramstrans.bench.timing import Contestant, Spread, interleave, spread, waiter
from ramstrans.console import Progress, no_progress
from ramstrans.data.preprocessing import Size
from ramstrans.evaluation.predict import autocast
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.rams import build_model

NUM_ROUNDS = 5


class Entrant(NamedTuple):
    """A model to be measured; its weights are random, which costs the same.

    Attributes:
        config: Number of classes included.
        crop: `(height, width)` of what regions are cut from with `zoom_source="full"`.
        top1: Percent, of the test split; None where it is not known.
    """

    config: ModelConfig
    crop: Size
    top1: float | None = None


class ModelResult(NamedTuple):
    """What one image costs a model.

    Attributes:
        name: As given.
        entrant: The model.
        macs: Multiply-adds of all looks, the regions between them included.
        seconds: Of one image, in a batch.
        ratio: Those seconds divided by the first model's, round by round.
    """

    name: str
    entrant: Entrant
    macs: int
    seconds: Spread
    ratio: Spread

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain values."""
        config, top1 = self.entrant.config, self.entrant.top1
        return {
            "name": self.name,
            "backbone": config.backbone,
            "scale_sizes": config.scale_sizes,
            "zoom_source": config.zoom_source,
            "top1": top1,
            "gmacs": self.macs / 1e9,
            "gflops": 2 * self.macs / 1e9,
            "seconds": self.seconds._asdict(),
            "ratio": self.ratio._asdict(),
        }


def run_models(
    entrants: Mapping[str, Entrant],
    output: Path,
    device: torch.device,
    *,
    batch_size: int = 32,
    precision: str = "fp32",
    num_rounds: int | None = None,
    command: str = "",
    progress: Progress = no_progress,
) -> list[ModelResult]:
    """Measure models in turn; writes bench.json.

    Args:
        entrants: By name; the first is what the others are compared with.
        output: The folder.
        device: Where.
        batch_size: Images a call.
        precision: Autocast precision.
        num_rounds: How often each is timed; None: 5 times.
        command: The line that started it, for bench.json.
        progress: Told (calls done, calls in all, what).
    """
    num_rounds = num_rounds or NUM_ROUNDS
    total = len(entrants) * (1 + num_rounds)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, total, "measuring models")

    results = measure_models(entrants, device, batch_size, precision, num_rounds, tick)
    options = {"batch_size": batch_size, "precision": precision, "repeats": num_rounds}
    models = [result.to_json() for result in results]
    write_json(output, describe_machine(device), command=command, options=options, models=models)
    return results


def measure_models(
    entrants: Mapping[str, Entrant],
    device: torch.device,
    batch_size: int,
    precision: str,
    num_rounds: int,
    tick: Callable[[], None] = lambda: None,
) -> list[ModelResult]:
    """Time models in turn on random images, in inference, the last look without a region."""
    contestants = {
        name: contestant(entrant, device, batch_size, precision) for name, entrant in entrants.items()
    }
    times = interleave(contestants, num_rounds, wait=waiter(device), tick=tick)
    first = next(iter(times.values()))
    return [
        ModelResult(
            name,
            entrant,
            macs_of(entrant.config).ours,
            spread([seconds / batch_size for seconds in times[name]]),
            spread([seconds / other for seconds, other in zip(times[name], first, strict=True)]),
        )
        for name, entrant in entrants.items()
    ]


def contestant(entrant: Entrant, device: torch.device, batch_size: int, precision: str) -> Contestant:
    """The model, with a batch of random images and, where it cuts from one, their source."""
    model = build_model(entrant.config).to(device).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, *entrant.config.input_size, generator=generator).to(device)
    needs_source = model.zoom_source == "full" and model.num_scales > 1
    high_res = torch.randn(batch_size, 3, *entrant.crop, generator=generator) if needs_source else None
    high_res = high_res if high_res is None else high_res.to(device)

    def run() -> object:
        with torch.inference_mode(), autocast(device, precision):
            return model(images, high_res, last_region=False)

    return Contestant(run, batch_size)


def models_table(results: Sequence[ModelResult]) -> Table:
    """A row for each model."""
    table = Table(title="Inference of one image; ratio: median over rounds", title_justify="left", box=None)
    table.add_column("model")
    for heading in ("looks", "top-1, %", "GMACs", "time", "ratio", "middle half"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        config, top1, ratio = result.entrant.config, result.entrant.top1, result.ratio
        table.add_row(
            result.name,
            " ".join(
                str(height) if height == width else f"{height}x{width}"
                for height, width in config.scale_sizes
            ),
            "" if top1 is None else f"{top1:.1f}",
            f"{result.macs / 1e9:.2f}",
            f"{1e3 * result.seconds.median:,.1f} ms",
            short(ratio.median),
            f"{short(ratio.low)} - {short(ratio.high)}",
        )
    return table

"""What is measured: one line per figure, with its target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ramstrans.errors import UsageError
from ramstrans.models.config import ModelConfig

NUM_CLASSES = 200
"""Classes of every model that is measured: as many as CUB-200-2011 has."""

TASKS: tuple[Literal["inference", "training"], ...] = ("inference", "training")
PRECISIONS: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")

BASE, SMALL, TINY = (f"{name}_patch16_224" for name in ("vit_base", "vit_small", "deit_tiny"))


@dataclass(frozen=True)
class Case:
    """One figure: what one candidate takes per image, divided by what another takes.

    Attributes:
        task: `inference`: what `ramstrans predict` computes; `training`: one optimiser step.
        backbone: Name in timm, with random weights.
        image_size: Side of the input in pixels.
        batch_size: Images per call.
        precision: Autocast precision.
        figure: `(first, second)`, names in `CANDIDATES`, one of them `ramstrans`; first / second is reported.
        measure: `time` of a call, or `memory`: its peak above weights and inputs.
        target: By type of device, what the figure should not exceed, or fall short of with `at_least`. On
            other devices it is measured only.
        at_least: Whether larger is better.
        needs_gpu: Too large for a CPU. Such cases are measured eager and compiled, both candidates alike; the
            mode in which ramstrans is faster counts.
        num_rounds: How often each candidate is timed.
        backbone_options: Further arguments for `timm.create_model`.
        saliency_layers: Of how many of the last layers attention is rolled out; None: of all.
    """

    task: Literal["inference", "training"]
    backbone: str
    image_size: int
    batch_size: int
    precision: Literal["fp32", "bf16"] = "fp32"
    figure: tuple[str, str] = ("ramstrans", "lower bound")
    measure: Literal["time", "memory"] = "time"
    target: Mapping[str, float] = field(default_factory=dict)
    at_least: bool = False
    needs_gpu: bool = False
    num_rounds: int = 3
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    saliency_layers: int | None = None

    def model_config(self) -> ModelConfig:
        """Two scales of this case's backbone."""
        return ModelConfig(
            backbone=self.backbone,
            num_classes=NUM_CLASSES,
            image_size=self.image_size,
            backbone_options=dict(self.backbone_options),
            saliency_layers=self.saliency_layers,
        )

    def describe(self) -> str:
        """One line of text.

        >>> CASES["memory-448-batch4"].describe()
        'ramstrans / plain, memory of inference, vit_base_patch16_224 at 448 px, batch 4, fp32'
        """
        what = f"{' / '.join(self.figure)}, {self.measure} of {self.task}"
        return f"{what}, {self.backbone} at {self.image_size} px, batch {self.batch_size}, {self.precision}"

    def target_text(self, device_type: str) -> str:
        """The target on a device; empty if there is none.

        >>> CASES["reference-448-fp32"].target_text("cpu"), CASES["reference-448-fp32"].target_text("cuda")
        ('>= 2', '')
        """
        target = self.target.get(device_type)
        return "" if target is None else f"{'>=' if self.at_least else '<='} {target:g}"

    def met(self, ratio: float, device_type: str) -> bool | None:
        """Whether a figure meets its target; None if there is none.

        >>> CASES["inference-448-fp32"].met(1.2, "cpu"), CASES["reference-448-fp32"].met(2.5, "cpu")
        (False, True)
        """
        target = self.target.get(device_type)
        if target is None:
            return None
        return ratio >= target if self.at_least else ratio <= target

    def why_not(self, device_type: str) -> str | None:
        """Why the case cannot be measured on a device, in a few words; None if it can.

        >>> CASES["gpu-inference-448-bf16"].why_not("cpu")
        'no GPU'
        """
        if self.needs_gpu and device_type != "cuda":
            return "no GPU"
        if self.measure == "memory" and device_type not in ("cpu", "cuda"):
            return f"memory is not counted on {device_type}"
        return None


REFERENCE: tuple[str, str] = ("reference", "ramstrans")
PLAIN: tuple[str, str] = ("ramstrans", "plain")
REGIONS: tuple[str, str] = ("regions", "ramstrans")
ON_GPU: dict[str, Any] = {"needs_gpu": True, "num_rounds": 20}

CASES: dict[str, Case] = {
    "inference-224-fp32": Case("inference", BASE, 224, 4, num_rounds=5),
    "inference-224-bf16": Case("inference", BASE, 224, 4, "bf16", num_rounds=5),
    "inference-448-fp32": Case("inference", BASE, 448, 4, target={"cpu": 1.10}),
    "inference-448-bf16": Case("inference", BASE, 448, 4, "bf16", target={"cpu": 1.20}, num_rounds=5),
    "inference-1024-fp32": Case("inference", SMALL, 1024, 1),
    "inference-1024-bf16": Case("inference", SMALL, 1024, 1, "bf16"),
    "reference-448-fp32": Case(
        "inference", BASE, 448, 4, figure=REFERENCE, target={"cpu": 2.0}, at_least=True
    ),
    "reference-448-bf16": Case("inference", BASE, 448, 4, "bf16", REFERENCE, at_least=True),
    "training-224-fp32": Case("training", TINY, 224, 32, target={"cpu": 1.10}, num_rounds=5),
    "training-224-bf16": Case("training", TINY, 224, 32, "bf16", target={"cpu": 1.10}, num_rounds=5),
    "training-448-fp32": Case("training", TINY, 448, 8),
    "training-448-bf16": Case("training", TINY, 448, 8, "bf16"),
    "training-reference-224-fp32": Case("training", TINY, 224, 32, figure=REFERENCE, at_least=True),
    "memory-448-batch1": Case("inference", BASE, 448, 1, figure=PLAIN, measure="memory"),
    "memory-448-batch4": Case(
        "inference", BASE, 448, 4, figure=PLAIN, measure="memory", target={"cpu": 1.3, "cuda": 1.3}
    ),
    "memory-1024-batch2": Case(
        "inference", SMALL, 1024, 2, figure=PLAIN, measure="memory", target={"cpu": 1.5, "cuda": 1.5}
    ),
    "regions-448-fp32": Case("inference", BASE, 448, 4, figure=REGIONS, target={"cpu": 0.02}),
    "gpu-inference-448-bf16": Case("inference", BASE, 448, 64, "bf16", target={"cuda": 1.05}, **ON_GPU),
    "gpu-training-448-bf16": Case("training", BASE, 448, 64, "bf16", target={"cuda": 1.05}, **ON_GPU),
    "gpu-regions-448-bf16": Case(
        "inference", BASE, 448, 64, "bf16", REGIONS, target={"cuda": 0.01}, needs_gpu=True
    ),
}
"""By name, in the order in which they are measured."""

BACKBONES = {
    "vit_base": BASE,
    "vit_small": SMALL,
    "deit_tiny": TINY,
    "dinov3_small": "vit_small_patch16_dinov3",
    "eva02_tiny": "eva02_tiny_patch14_224",
    "siglip2_base": "vit_base_patch16_siglip_224",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "convnext_tiny": "convnext_tiny",
    "efficientnet_lite0": "tf_efficientnet_lite0",
}
"""Whose cost of two scales over two plain passes is compared, by a short name."""

BACKBONE_CASES: dict[str, Case] = {
    f"{task}-{name}-{side}-{precision}": Case(
        task, backbone, side, 2 if side == 448 or task == "inference" else 8, precision, target={"cpu": 1.10}
    )
    for name, backbone in BACKBONES.items()
    for side in (224, 448)
    for precision in PRECISIONS
    for task in TASKS
}
"""Two scales of any backbone over two plain passes."""

BACKBONE_CASES |= {
    f"inference-deit_tiny-448-{precision}-last6": Case(
        "inference", TINY, 448, 2, precision, target={"cpu": 1.10}, saliency_layers=6
    )
    for precision in PRECISIONS
}


def choose_cases(names: Sequence[str] | None) -> dict[str, Case]:
    """The cases of these names, in the order of the tables; all but `BACKBONE_CASES` if None.

    Args:
        names: Of cases; `backbones` is all of `BACKBONE_CASES`.

    Raises:
        UsageError: There is no such case.

    >>> list(choose_cases(["memory-448-batch1", "inference-224-fp32"]))
    ['inference-224-fp32', 'memory-448-batch1']
    """
    if not names:
        return dict(CASES)
    known = CASES | BACKBONE_CASES
    for name in names:
        if name not in known and name != "backbones":
            choices = ", ".join(["backbones", *CASES])
            raise UsageError(f"--cases {name}: there is no such case; choose from {choices}, or see --list")
    wanted = {*names, *(BACKBONE_CASES if "backbones" in names else ())}
    return {name: case for name, case in known.items() if name in wanted}

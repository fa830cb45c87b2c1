"""What the candidates of one case have in common: device, compilation, weights, images."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchmarks.cases import NUM_CLASSES, Case
from ramstrans.models.backbones import build_backbone
from ramstrans.models.methods.build import build_model
from ramstrans.models.methods.rams import RamsTrans
from ramstrans.training.config import RunConfig, TrainingConfig
from ramstrans.training.step import uses_explicit_attention

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Hardware:
    """Builds, for each candidate of a case, a model and images of its own, all alike.

    Attributes:
        case: What is measured.
        device: Where to compute.
        compiled: Whether models are compiled by `torch.compile`.
    """

    case: Case
    device: torch.device
    compiled: bool = False

    def images(self, count: int | None = None) -> Tensor:
        """(count, 3, H, W) random images; the case's batch if None."""
        count, side = count or self.case.batch_size, self.case.image_size
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, 3, side, side, generator=generator).to(self.device)

    def labels(self) -> Tensor:
        """(B,) int64 random labels."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(NUM_CLASSES, (self.case.batch_size,), generator=generator).to(self.device)

    def model(self) -> RamsTrans:
        """The model with two scales."""
        torch.manual_seed(0)
        return build_model(self.case.model_config()).to(self.device)

    def backbone(self) -> Any:  # noqa: ANN401 - any timm model
        """The plain timm model of the same name, size and classes."""
        torch.manual_seed(0)
        return build_backbone(self.case.model_config()).to(self.device)

    def prepared(self, module: Module) -> Module:
        """The same module, to be compiled on its first call if the case is measured so."""
        if self.compiled:
            module.compile()
        return module

    @cached_property
    def run_config(self) -> RunConfig:
        """A training run of the case."""
        training = TrainingConfig(
            batch_size=self.case.batch_size, precision=self.case.precision, optimizer="adamw", lr=1e-5
        )
        return RunConfig(model=self.case.model_config(), training=training, device=str(self.device))

    @cached_property
    def fused(self) -> bool:
        """Whether blocks keep fused attention in training: the faster choice here, for all candidates."""
        return not uses_explicit_attention(self.run_config.training, self.device)

"""Options of a benchmark."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ramstrans.bench.cases import Case, choose_cases
from ramstrans.data.config import DataConfig
from ramstrans.errors import ConfigError

LOADER_OPTIONS = ("run", "batch_size", "num_images", "precision")


@dataclass(frozen=True)
class BenchConfig:
    """What is measured and how: cases, or with `data.root` the loader beside a model.

    Attributes:
        cases: Names of cases; None: all.
        repeats: Timed rounds; None: 3 to 20, as each case says; 3 for the loader.
        threads: Of the CPU; None: torch's choice.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        output: Folder to write; None: `bench-<date>`.
        data: Photographs, and how they are loaded, for the loader's benchmark.
        run: Run folder of the loader's model; None: DeiT-Tiny, two scales, random weights.
        batch_size: Images a batch of the loader.
        num_images: Photographs of the test and of the training split to load, at most.
        precision: Autocast precision of the loader's model.
    """

    cases: tuple[str, ...] | None = None
    repeats: int | None = None
    threads: int | None = None
    device: str = "auto"
    output: Path | None = None
    data: DataConfig = field(default_factory=DataConfig)
    run: Path | None = None
    batch_size: int = 32
    num_images: int = 256
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        for name in ("repeats", "threads", "batch_size", "num_images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} is {value}; give 1 or more")
        assert self.selected, "there is a case"
        if self.of_loader and self.cases is not None:
            raise ConfigError("--cases goes without --data.root; measure cases and the loader one by one")
        default = type(self).__dataclass_fields__
        for name in () if self.of_loader else LOADER_OPTIONS:
            if getattr(self, name) != default[name].default:
                raise ConfigError(f"--{name} is of the loader's benchmark; give --data.root too")

    @property
    def of_loader(self) -> bool:
        """Whether the loader is measured instead of cases."""
        return self.data.root is not None

    @property
    def selected(self) -> dict[str, Case]:
        """The cases, by name."""
        return choose_cases(self.cases)

"""Options of a benchmark."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ramstrans.bench.cases import Case, choose_cases
from ramstrans.data.config import DataConfig
from ramstrans.errors import ConfigError

LOADER_OPTIONS = ("run", "num_images")
BATCH_OPTIONS = ("batch_size", "precision")
"""Options of the loader's benchmark, and of those that have no cases to say it."""


@dataclass(frozen=True)
class BenchConfig:
    """What is measured and how: cases, or models side by side, or with `data.root` the loader beside a model.

    Attributes:
        cases: Names of cases; None: all.
        models: Configs that come along, config files or run folders; the first is what others are compared
            with.
        repeats: Timed rounds; None: 3 to 20, as each case says; 5 for models, 3 for the loader.
        threads: Of the CPU; None: torch's choice.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        output: Folder to write; None: `bench-<date>`.
        data: Photographs, and how they are loaded, for the loader's benchmark.
        run: Run folder of the loader's model; None: DeiT-Tiny, two scales, random weights.
        batch_size: Images a batch, of models and of the loader.
        num_images: Photographs of the test and of the training split to load, at most.
        precision: Autocast precision of models, or of the loader's.
    """

    cases: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
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
        given = {"--cases": self.cases, "--models": self.models, "--data.root": self.data.root}
        asked = [name for name, value in given.items() if value is not None]
        if len(asked) > 1:
            raise ConfigError(f"{asked[0]} goes without {asked[1]}; measure one, then the other")
        if not self.of_loader:
            self._refuse(LOADER_OPTIONS, "--data.root")
            if self.models is None:
                self._refuse(BATCH_OPTIONS, "--models or --data.root")

    def _refuse(self, names: tuple[str, ...], other: str) -> None:
        default = type(self).__dataclass_fields__
        for name in names:
            if getattr(self, name) != default[name].default:
                raise ConfigError(f"--{name} has no effect here; give {other} too, or leave it out")

    @property
    def of_loader(self) -> bool:
        """Whether the loader is measured instead of cases."""
        return self.data.root is not None

    @property
    def selected(self) -> dict[str, Case]:
        """The cases, by name."""
        return choose_cases(self.cases)

"""Options of an evaluation, and of a calibration."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ramstrans.calibration.wanted import ScoreName, SetMethod, Wanted, check_rank_confidence
from ramstrans.data.config import DatasetFormat
from ramstrans.data.records import SPLITS, Split
from ramstrans.errors import ConfigError
from ramstrans.hub import Address, is_address
from ramstrans.options import Precision, check_names
from ramstrans.plain import counted


@dataclass(frozen=True)
class EvaluationData:
    """Data to evaluate on, where they are not those of the training run.

    Attributes:
        name: Data set format; default: the run's, or with another root the one detected there.
        root: Folder or table; default: the run's.
        path_column: Column of a table with the image paths; default: the run's.
        label_column: Column of a table with the class names; default: the run's.
        label_separator: Where images may have several labels, what stands between names; default: the run's.
        label_columns: The same, columns that are a label each; default: the run's.
        split_column: Column of a table with the splits; default: the run's.
        image_folder: Folder that the paths of a table are relative to; default: the run's, or with another
            table that table's folder.
        on_unreadable: Whether a file that cannot be decoded stops the evaluation or is left out and reported;
            default: the run's.
    """

    name: DatasetFormat | None = None
    root: Path | None = None
    path_column: str | None = None
    label_column: str | None = None
    label_separator: str | None = None
    label_columns: tuple[str, ...] | str | None = None
    split_column: str | None = None
    image_folder: Path | None = None
    on_unreadable: Literal["stop", "skip"] | None = None


@dataclass(frozen=True)
class EvaluationConfig:
    """Options of an evaluation.

    Attributes:
        run: Run folder, or any saved model; hf://user/name[@revision] is one of the hub.
        split: Split to evaluate on; drawn as in training if the data set has no splits of its own. Default:
            the test split; of another data set than the run's, in an unpublished format, all images.
        output: Folder to write to; default: RUN/evaluation-SPLIT; with --data.root RUN/evaluation-ROOT, and
            with --split too RUN/evaluation-ROOT-SPLIT; with --num_scales 1, say,
            RUN/evaluation-SPLIT-1_scale; --fusion fitted: RUN/evaluation-SPLIT-fitted. Of hf://user/name, in
            the folder name.
        data: Data to evaluate on.
        batch_size: Images per batch.
        early_exit: Evaluate early exit too: the confidence at which an image skips the remaining scales, or
            auto: chosen on the validation split for a loss of at most 0.2 points, and saved in RUN.
        num_scales: Use the first so many of the scales that were trained; default: all, of calcrop one.
        fusion: How scales are fused, in this evaluation alone: `mean`, or a mean with weights that are
            `fitted` on the validation split.
        regions: Judge the regions too, on so many of the images, drawn by a fixed seed, or on all: accuracy
            from the region alone and without it, deletion and insertion, stability. About 60 looks per image.
        unknown: Folder of images of no class of the model: how well they are told to be unknown is measured.
        priors: List of the classes that occur, or table of weights by conditions, see docs/calibrate.md: what
            they change is measured.
        rank_confidence: Probability that an answer at some rank of the taxonomy is to reach, above 0.5;
            default: that of `calibrate`.
        knn: Tell the classes also by a vote of so many nearest training images, e.g. 20.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: Default: as the run was trained, else fp32. fp16 needs a GPU.
    """

    run: Path
    split: Split | None = None
    output: Path | None = None
    data: EvaluationData = field(default_factory=EvaluationData)
    batch_size: int = 32
    early_exit: float | Literal["auto"] | None = None
    num_scales: int | None = None
    fusion: Literal["mean", "fitted"] = "mean"
    regions: int | Literal["all"] | None = None
    unknown: Path | None = None
    priors: Path | None = None
    rank_confidence: float | None = None
    knn: int | None = None
    device: str = "auto"
    precision: Precision | None = None

    def __post_init__(self) -> None:
        check_names("--", self)
        check_batch_size(self.batch_size)
        check_rank_confidence(self.rank_confidence)
        if self.knn is not None and self.knn < 1:
            raise ConfigError(f"--knn is {self.knn}; give 1 or more nearest training images, e.g. 20")
        if isinstance(self.regions, int) and self.regions < 1:
            raise ConfigError(f"--regions is {self.regions}; give a number of images, 1 or more, or all")
        if self.early_exit is not None and self.fusion == "fitted":
            raise ConfigError(
                "--early_exit takes the mean of the scales that an image has passed; leave --fusion out"
            )
        for name in ("unknown", "priors", "rank_confidence"):
            if getattr(self, name) is not None and self.fusion == "fitted":
                raise ConfigError(
                    f"--{name} asks the calibration, which is that of the mean; leave --fusion out"
                )
        if self.early_exit == "auto" and self.num_scales is not None:
            raise ConfigError(
                "--early_exit auto chooses a confidence for all scales, and --num_scales leaves some out; "
                "give one of them"
            )
        if self.early_exit == "auto" and is_address(self.run):
            raise ConfigError(
                "--early_exit auto saves the confidence in RUN, which is on the hub; give a number, or "
                "choose it for the run and push again"
            )

    @property
    def folder(self) -> Path:
        """Where the report goes."""
        root, split = self.data.root, self.split
        images: str = split or "test"
        if root is not None:
            images = name_of_root(root) + ("" if split is None else f"-{split}")
        scales = "" if self.num_scales is None else f"-{counted(self.num_scales, 'scale').replace(' ', '_')}"
        fusion = "" if self.fusion == "mean" else f"-{self.fusion}"
        name = f"evaluation-{images}{scales}{fusion}"
        own = Path(Path(Address.parse(str(self.run)).repository).name) if is_address(self.run) else self.run
        return self.output or own / name


def name_of_root(root: Path) -> str:
    """The name of a folder or, without its suffix, of a table; two parts of it if that is a split's.

    Reports on the run's own data are named by the split alone.

    >>> name_of_root(Path("new/birds.v1")), name_of_root(Path("new/birds/test"))
    ('birds.v1', 'birds_test')
    """
    whole = Path(os.path.abspath(root))  # noqa: PTH100 - links stay
    name = whole.stem if whole.is_file() else whole.name
    return f"{whole.parent.name}_{name}" if name in SPLITS else name


@dataclass(frozen=True)
class CalibrationConfig:
    """Options of a calibration.

    Attributes:
        run: Run folder, or any saved model; calibration.json is written there.
        data: Labelled images that the model was not trained on; default: the run's validation images.
        unknown: Folder of images of no class of the model, on which the score that tells the unknown is
            chosen; default: the model's own classes are left out in turn.
        score: How the unknown is told: max_probability, max_logit, energy, knn, mahalanobis or vim; auto: by
            the one that tells best.
        reject: Share of known images that may be rejected as unknown.
        coverage: Share of images whose prediction set is to have the true class.
        set_method: How prediction sets are made: lac, whose sets are the smallest; aps or raps, whose sets
            differ more in size between easy and difficult images.
        per_class: Cover each class, and not all of them on average.
        taxonomy: Table (CSV) whose header names the ranks, e.g. class,genus,family: a line for each class;
            default: the ranks that the data set brings, or that are kept from before. Answers roll up to the
            finest rank that is certain.
        rank_confidence: Probability that such an answer is to reach, above 0.5; default: 0.9.
        batch_size: Images per batch.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: Default: as the run was trained, else fp32. fp16 needs a GPU.
    """

    run: Path
    data: EvaluationData = field(default_factory=EvaluationData)
    unknown: Path | None = None
    score: ScoreName | Literal["auto"] = Wanted.score
    reject: float = Wanted.reject
    coverage: float = Wanted.coverage
    set_method: SetMethod = Wanted.set_method
    per_class: bool = Wanted.per_class
    taxonomy: Path | None = None
    rank_confidence: float | None = None
    batch_size: int = 32
    device: str = "auto"
    precision: Precision | None = None

    def __post_init__(self) -> None:
        check_names("--", self)
        check_batch_size(self.batch_size)
        check_rank_confidence(self.rank_confidence)
        _ = self.wanted

    @property
    def wanted(self) -> Wanted:
        """What is asked of the calibration."""
        return Wanted(self.score, self.reject, self.coverage, self.set_method, self.per_class)


def check_batch_size(batch_size: int) -> None:
    """Raise ConfigError unless a batch has images."""
    if batch_size < 1:
        raise ConfigError(f"--batch_size is {batch_size}; give 1 or more")

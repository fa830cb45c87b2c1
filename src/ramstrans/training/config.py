"""Options of a training run."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ramstrans.data.config import DataConfig
from ramstrans.errors import ConfigError
from ramstrans.models.config import ModelConfig
from ramstrans.options import (
    ABOVE_0,
    ABOVE_0_TO_1,
    AT_LEAST_0,
    AT_LEAST_1,
    FROM_0_BELOW_1,
    FROM_0_TO_1,
    Bound,
    Precision,
    check_bounds,
    check_names,
    paths_from_text,
    warn_ignored,
)

OPTIONS_FILE = "run.yaml"
"""File of a run folder with every option of the run."""

TrackerName = Literal[
    "tensorboard", "wandb", "mlflow", "trackio", "aim", "clearml", "comet_ml", "dvclive", "swanlab"
]
"""Trackers that Accelerate has; each needs the library of this name."""

SEARCH_FILE = "search.db"
"""SQLite file of a search, by which its folder is known; a search goes on from it."""

WHERE = ("root", "image_folder", "num_workers", "read_timeout", "cache", "cache_dir")
"""Options of the data that a run or search may go on with other values of."""

BOUNDS: dict[str, Bound] = {
    **dict.fromkeys(
        ("epochs", "max_steps", "batch_size", "gradient_accumulation_steps", "evaluate_every"), AT_LEAST_1
    ),
    **dict.fromkeys(("keep_checkpoints", "lora_rank", "lora_alpha", "patience", "probe_views"), AT_LEAST_1),
    **dict.fromkeys(("weight_decay", "warmup_steps", "warmup_epochs", "gradient_clip"), AT_LEAST_0),
    **dict.fromkeys(("momentum", "mixup", "cutmix", "contrastive", "freeze_blocks"), AT_LEAST_0),
    **dict.fromkeys(("checkpoint_every", "max_skipped_steps", "random_region_epochs"), AT_LEAST_0),
    **dict.fromkeys(("label_smoothing", "ema_decay", "fused_target"), FROM_0_BELOW_1),
    **dict.fromkeys(("mixing_probability", "min_lr_factor"), FROM_0_TO_1),
    "layer_decay": ABOVE_0_TO_1,
    "lr": ABOVE_0,
}


@dataclass(frozen=True)
class TrainingConfig:
    """The training recipe; the defaults are the paper's, except for length and batch size.

    Attributes:
        epochs: Passes over the training images; None: by their number, at least 12, and up to 60 to make 300
            steps.
        max_steps: Stop after this many optimiser steps; None: after `epochs`. The schedule ends there.
        batch_size: Images per optimiser step, all processes together.
        gradient_accumulation_steps: Micro-batches per optimiser step and process: less memory, the same
            gradients.
        optimizer: `sgd` (the paper), `adamw`, or any name of `timm.optim.list_optimizers()`.
        lr: Peak learning rate.
        momentum: Momentum of SGD.
        weight_decay: Not applied to biases, norms, tokens and position embeddings.
        layer_decay: Factor on the learning rate from each layer to the one below, in (0, 1]; 1 is off.
        warmup_steps: Steps of linear warm-up before the cosine.
        warmup_epochs: The same in epochs, used instead where it is given.
        min_lr_factor: Share of the peak learning rate at which the cosine ends.
        gradient_clip: Largest norm of all gradients together; 0 is off.
        label_smoothing: In [0, 1): share of the target that is spread evenly over all classes; with
            `data.multi_label`, each label's target moves by it towards 1/2.
        loss: With `data.multi_label`: `bce`, the binary cross-entropy of each label, or `asymmetric`: of the
            labels that an image has not, easy ones count less, or not at all (arXiv 2009.14119).
        mixup: alpha of mixup; 0 is off.
        cutmix: alpha of CutMix, with a target for each scale by what it sees; 0 is off.
        mixing_probability: Share of batches that are mixed, if either is on.
        contrastive: Weight of TransFG's contrastive loss on the class tokens; 0 is off. None: 1 for
            `model.method transfg`, as in its paper, else 0.
        ema_decay: Decay of an exponential moving average of the weights, which is evaluated and saved instead
            of them; 0 is off.
        finetune: What is trained: `all`, the `head` alone (linear probe), or `lora`: adapters and the head.
        freeze_blocks: With `all`: number of first blocks to freeze, with the embedding and the class tokens
            before them.
        probe_views: Views of each training image that a linear probe is fitted to: the one in the centre,
            then augmented ones.
        probe_cache: Folder where a linear probe keeps the features, for other runs too; None: `features` in
            the run folder.
        train_tokens: With `head`: train the class tokens too.
        train_norms: With `head`: train the LayerNorms too.
        lora_rank: With `lora`: rank of the adapters.
        lora_alpha: With `lora`: scale of the adapters, divided by their rank.
        lora_mlp: With `lora`: adapt the MLPs too, not only the attention.
        loss_weights: Weight of each scale's cross-entropy, `num_scales` of them, e.g. `[0, 1]` for the last
            scale only; None: 1 each (paper).
        fused_target: Share, in [0, 1), of each scale's loss whose target is the fused answer of all scales,
            which a pass without gradients gives first; 0 is off (paper).
        random_region_epochs: First epochs in which scales look at boxes of the same sides anywhere, not where
            the saliency is; 0 is off.
        precision: Autocast precision of forward and loss.
        attention: `fused` keeps the backbone's fused attention; `math` multiplies matrices, which
            trains faster on CPUs with bf16 units; `auto` takes `math` for bf16 on CPU, else `fused`.
        gradient_checkpointing: Keep only each block's input and recompute the block for its gradients:
            far less memory, a third more time.
        channels_last: Lay the feature maps of CNNs out by location, not by channel: faster in fp32 on CPUs.
        compile: Let torch.compile (inductor) fuse each scale; pays on GPUs, from a few hundred steps on.
        fsdp: With several processes, shard weights, gradients and optimiser state between them (FSDP2)
            instead of copying them (DDP).
        class_weights: Weight of each class in every scale's cross-entropy: `none`, or `balanced`:
            inversely proportional to its training images, 1 on average. With `data.multi_label` it weighs the
            images that have a label, n of N, by (N - n) / n.
        evaluate_every: Epochs between evaluations on the validation split.
        patience: Evaluations in a row without a better epoch after which training stops; None: never. The
            schedule of the learning rate is still that of all epochs.
        checkpoint_every: Steps between checkpoints; None: one per epoch; 0: none, and no resuming.
        keep_checkpoints: Number of newest checkpoints to keep, besides the best epoch's of each.
        max_skipped_steps: Consecutive steps that may be skipped because the loss or a gradient is not finite
            before the run stops.
    """

    epochs: int | None = 50
    max_steps: int | None = None
    batch_size: int = 16
    gradient_accumulation_steps: int = 1
    optimizer: str = "sgd"
    lr: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 0.0
    layer_decay: float = 1.0
    warmup_steps: int = 500
    warmup_epochs: float | None = None
    min_lr_factor: float = 0.0
    gradient_clip: float = 1.0
    label_smoothing: float = 0.0
    loss: Literal["bce", "asymmetric"] = "bce"
    mixup: float = 0.0
    cutmix: float = 0.0
    mixing_probability: float = 1.0
    contrastive: float | None = None
    ema_decay: float = 0.0
    finetune: Literal["all", "head", "lora"] = "all"
    freeze_blocks: int = 0
    probe_views: int = 1
    probe_cache: Path | None = None
    train_tokens: bool = False
    train_norms: bool = False
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_mlp: bool = False
    loss_weights: tuple[float, ...] | None = None
    fused_target: float = 0.0
    random_region_epochs: int = 0
    class_weights: Literal["none", "balanced"] = "none"
    precision: Precision = "fp32"
    attention: Literal["auto", "fused", "math"] = "auto"
    gradient_checkpointing: bool = False
    channels_last: bool = False
    compile: bool = False
    fsdp: bool = False
    evaluate_every: int = 1
    patience: int | None = None
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    max_skipped_steps: int = 5

    def __post_init__(self) -> None:
        paths_from_text(self, "probe_cache")
        check_names("training.", self)
        check_bounds("training", self, BOUNDS)
        if self.contrastive and (self.mixup or self.cutmix):
            raise ConfigError(
                "training.contrastive needs images of one class each; use it or mixup and cutmix, not both"
            )
        if self.freeze_blocks and self.finetune != "all":
            raise ConfigError(
                f"training.freeze_blocks goes with finetune all, not {self.finetune}; leave one out"
            )
        if self.compile and self.gradient_checkpointing:
            raise ConfigError(
                "training.compile does not go with training.gradient_checkpointing: a compiled graph decides "
                "itself what to recompute; leave one out"
            )
        if self.attention == "math" and self.gradient_checkpointing:
            raise ConfigError(
                "training.attention math does not go with training.gradient_checkpointing; leave one out"
            )
        head = (self.finetune == "head", "training.finetune head")
        probe = (self.is_probe, "a linear probe: training.finetune head alone")
        steps = (not self.is_probe, "training.finetune all or lora: a linear probe is fitted to convergence")
        lora = (self.finetune == "lora", "training.finetune lora")
        needs = {
            "mixing_probability": (bool(self.mixup or self.cutmix), "training.mixup or cutmix"),
            **dict.fromkeys(("train_tokens", "train_norms"), head),
            **dict.fromkeys(("probe_views", "probe_cache"), probe),
            **dict.fromkeys(("mixup", "cutmix", "contrastive", "ema_decay", "patience", "compile"), steps),
            **dict.fromkeys(("gradient_checkpointing", "channels_last", "max_steps", "fsdp"), steps),
            **dict.fromkeys(("lora_rank", "lora_alpha", "lora_mlp"), lora),
            "momentum": (self.optimizer != "adamw", "training.optimizer sgd, or another that has it"),
            "warmup_steps": (self.warmup_epochs is None, "training.warmup_epochs null"),
        }
        warn_ignored("training", self, needs)

    @property
    def is_probe(self) -> bool:
        """Whether the head alone is trained, on features that do not change: a linear probe."""
        return self.finetune == "head" and not (self.train_tokens or self.train_norms)


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a training run.

    Attributes:
        data: The images, and how they are loaded.
        model: The network.
        training: The recipe.
        output: Run folder; None: `runs/<data name>-<backbone>-<date>`.
        overwrite: Replace an existing run folder.
        calibrate: At the end, fit calibrated probabilities, a rule that tells the unknown, and prediction
            sets on the validation images, see docs/calibrate.md; the model and its accuracy stay the same.
        seed: Seed of initial weights, order and augmentation.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        tracker: Where the numbers of metrics.jsonl and the options go too: one tracker, or several as
            `[tensorboard,wandb]`; `[]`: none. All but `tensorboard` need the library of that name.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    output: Path | None = None
    overwrite: bool = False
    calibrate: bool = True
    seed: int = 0
    device: str = "auto"
    tracker: TrackerName | tuple[TrackerName, ...] = "tensorboard"

    def __post_init__(self) -> None:
        paths_from_text(self, "output")
        check_names("", self)
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed is {self.seed}; give 0 to {2**32 - 1}")
        if self.data.multi_label != self.model.multi_label:
            if self.model.multi_label:
                raise ConfigError(
                    "model.multi_label follows from the data; give --data.multi_label true, or leave it out"
                )
            object.__setattr__(self, "model", replace(self.model, multi_label=True))
        if self.data.multi_label:
            self._check_multi_label()
        if self.training.class_weights == "balanced" and self.data.balance:
            raise ConfigError(
                "training.class_weights balanced and data.balance both make up for rare classes; use one"
            )
        if self.training.is_probe and self.data.balance:
            raise ConfigError(
                "data.balance draws rare classes more often, but a linear probe sees every image alike; "
                "use training.class_weights balanced instead"
            )
        if self.training.loss_weights is not None:
            self._check_loss_weights(self.training.loss_weights)
        mixes = bool(self.training.mixup or self.training.cutmix)
        if self.model.method == "transfg" and self.training.contrastive is None and mixes:
            raise ConfigError(
                "model.method transfg has a contrastive loss, which needs images of one class each; give "
                "training.contrastive 0, or leave training.mixup and cutmix out"
            )
        if self.model.method == "glsim" and self.training.is_probe:
            raise ConfigError(
                "training.finetune head fits the head alone, and the aggregator of model.method glsim has to "
                "be trained too; give all or lora"
            )
        if self.model.method == "calcrop" and self.training.is_probe and self.training.loss_weights:
            raise ConfigError(
                "training.loss_weights does not go with training.finetune head and model.method calcrop, "
                "which answers from one look: the head is fitted to that alone; leave it out"
            )
        is_native = self.model.zoom_source == "native"
        if is_native and mixes:
            raise ConfigError(
                "model.zoom_source native does not go with training.mixup and cutmix: images of several "
                "sizes cannot be mixed; give model.zoom_source full, or leave them out"
            )
        warn_ignored("data", self.data, {"zoom_pixels": (is_native, "model.zoom_source native")})
        has_regions = self.model.num_scales > 1 and not self.training.is_probe
        needs = {
            "loss": (self.data.multi_label, "data.multi_label"),
            "fused_target": (has_regions, "model.num_scales 2 or more"),
            "random_region_epochs": (
                has_regions and self.model.region_placement in ("found", "centre"),
                "regions that are found: model.num_scales 2 or more",
            ),
        }
        warn_ignored("training", self.training, needs)

    def _check_loss_weights(self, weights: tuple[float, ...]) -> None:
        if len(weights) != self.model.num_scales:
            raise ConfigError(
                f"training.loss_weights has {len(weights)} values; "
                f"give one for each of the {self.model.num_scales} scales"
            )
        if min(weights) < 0 or not any(weights):
            raise ConfigError(
                f"training.loss_weights is {list(weights)}; give 0 or more for each scale, and more for one"
            )

    @property
    def trackers(self) -> tuple[str, ...]:
        """Names of the trackers, each once."""
        names = (self.tracker,) if isinstance(self.tracker, str) else self.tracker
        return tuple(dict.fromkeys(names))

    def _check_multi_label(self) -> None:
        """Refuse what needs images of one class each."""
        contrastive = self.training.contrastive
        if contrastive or (self.model.method == "transfg" and contrastive is None):
            raise ConfigError(
                "training.contrastive compares images of one class each, and data.multi_label has images of "
                "several; give training.contrastive 0"
            )
        if self.training.fused_target:
            raise ConfigError(
                "training.fused_target is for classes that exclude each other, and those of data.multi_label "
                "do not; give training.fused_target 0"
            )
        if self.training.is_probe:
            raise ConfigError(
                "training.finetune head fits a softmax over classes, and data.multi_label has none; give all "
                "or lora"
            )

"""What a training run is built of: processes and devices, data sets, loaders."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import MixedPrecisionPolicy

from ramstrans.data.build import build_cache, fingerprint, val_fraction_for
from ramstrans.data.loading.dataset import ImageDataset
from ramstrans.data.loading.loader import ImageLoader, build_loader
from ramstrans.data.loading.sampling import order_of
from ramstrans.data.loading.transforms import Augmentation
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.records import ImageSet, Split
from ramstrans.distributed import choose_device, computes_bf16
from ramstrans.errors import ConfigError, UsageError
from ramstrans.evaluation.unknown_images import UnknownImages
from ramstrans.models.methods.method import Method
from ramstrans.training.config import RunConfig

logger = logging.getLogger(__name__)

MIN_EPOCHS, MAX_EPOCHS, ENOUGH_STEPS = 12, 60, 300
"""Length of a run that leaves its epochs open."""

MAX_EVALUATION_BATCH = 64
"""Images per batch of an evaluation; more are hardly faster."""


class Prepared(NamedTuple):
    """Everything that a run needs before its first step.

    Attributes:
        config: The run's config, with what the data decided filled in.
        images: The data set, unreadable files gone.
        model: With its initial weights, on the CPU.
        preprocessing: How images become inputs.
        unreadable: A line per unreadable file, which was skipped.
        resumes: Whether an unfinished run in `config.output` is resumed.
        unknown: Test images of the classes that are left out, if there are some.
    """

    config: RunConfig
    images: ImageSet
    model: Method
    preprocessing: Preprocessing
    unreadable: tuple[str, ...] = ()
    resumes: bool = False
    unknown: UnknownImages | None = None

    def fingerprint(self) -> str:
        """A hash of which files are in which class and split."""
        return fingerprint(self.images, self.config.data)

    def dataset(self, split: Split) -> ImageDataset:
        """The views of one split: random ones for training, centred ones otherwise."""
        data = self.config.data
        augmentation = Augmentation(
            data.flip, data.color_jitter, data.rand_augment, data.rand_magnitude, data.random_erasing
        )
        return ImageDataset(
            self.images.of_split(split),
            self.preprocessing,
            self.config.model.input_size,
            augmentation=augmentation if split == "train" else None,
            seed=self.config.seed,
            cache=build_cache(data, is_read_once=split == "test"),
            max_pixels=data.max_pixels,
            num_classes=len(self.images.class_names) if data.multi_label else None,
        )

    def loader(self, dataset: ImageDataset, *, is_training: bool = False) -> ImageLoader:
        """A loader over one of these data sets: shuffled for training, in order for evaluation."""
        config, draw, loading = self.config, None, self.loading()
        if is_training:
            loading["batch_size"] = config.training.batch_size
            draw = order_of(dataset.records, balance=config.data.balance, window=config.data.shuffle_window)
        return build_loader(
            dataset,
            shuffle=is_training,
            with_high_res=config.model.needs_high_res,
            seed=config.seed if is_training else 0,
            draw=draw,
            **loading,
        )

    def loading(self) -> dict[str, Any]:
        """How batches of an evaluation are loaded, as options of `build_loader`."""
        config = self.config
        return {
            "batch_size": evaluation_batch_size(config),
            "num_workers": config.data.num_workers,
            "timeout": config.data.read_timeout,
            "pin_memory": choose_device(config.device).type == "cuda",
        }

    def loaders(self) -> tuple[ImageLoader, ImageLoader | None]:
        """Loaders of the training and, if there is one, the validation split."""
        val_set = self.dataset("val")
        train_loader = self.loader(self.dataset("train"), is_training=True)
        return train_loader, self.loader(val_set) if len(val_set) else None


def start_processes(config: RunConfig) -> PartialState:
    """Join the other processes, if `accelerate launch` or `torchrun` has started some."""
    device = choose_device(config.device)
    # Accelerate keeps the first run's precision and device for the whole process, or refuses others.
    AcceleratorState._reset_state(reset_partial_state=True)
    return PartialState(cpu=device.type == "cpu")


def with_classes_of(config: RunConfig, images: ImageSet) -> RunConfig:
    """The run with the number of classes of its data set.

    Raises:
        ConfigError: It has been given another.
    """
    given, num_classes = config.model.num_classes, len(images.class_names)
    if given not in (None, num_classes):
        raise ConfigError(f"model.num_classes is {given}; the data set has {num_classes}: leave it out")
    return replace(config, model=replace(config.model, num_classes=num_classes))


def with_length_for(config: RunConfig, num_train: int, num_val: int = 0) -> RunConfig:
    """The run with its epochs and validation fraction filled in, if it leaves them to the number of images.

    Few images get more epochs, so that there are steps enough to learn.

    Args:
        config: The run.
        num_train: Training images.
        num_val: Images held out from them, or of a validation split of the data set's own.
    """
    training, data = config.training, config.data
    if data.val_fraction is None:
        data = replace(data, val_fraction=val_fraction_for(num_train + num_val))
    if training.epochs is None:
        per_epoch = math.ceil(num_train / training.batch_size)
        epochs = min(max(MIN_EPOCHS, math.ceil(ENOUGH_STEPS / per_epoch)), MAX_EPOCHS)
        training = replace(training, epochs=epochs)
    return replace(config, data=data, training=training)


def build_accelerator(
    config: RunConfig, output: Path, block_names: Sequence[str] = ("Block",)
) -> Accelerator:
    """Set up devices, processes and precision by Accelerate.

    Args:
        config: The run's options.
        output: The run folder.
        block_names: Class names of the modules that FSDP2 shards one by one.

    Raises:
        UsageError: The options do not go together with the device or the number of processes.
    """
    device, training = choose_device(config.device), config.training
    state = start_processes(config)
    if device.type == "cuda":
        if state.num_processes == 1:
            torch.cuda.set_device(device.index or 0)
        elif config.device not in ("auto", "cuda"):
            raise UsageError(f"device is {config.device}; several processes use one GPU each: leave it out")
    if training.precision == "fp16" and device.type == "cpu":
        raise UsageError("training.precision fp16 needs a GPU; on a CPU use bf16 or fp32")
    if training.precision == "bf16" and not computes_bf16(device):
        logger.warning(
            "this CPU has no units for bf16, which takes about ten times longer there than fp32: "
            "give --training.precision fp32"
        )
    return Accelerator(
        mixed_precision={"fp32": "no"}.get(training.precision, training.precision),
        cpu=device.type == "cpu" and not training.fsdp,
        project_dir=output,
        dynamo_backend="inductor" if training.compile else None,
        fsdp_plugin=_fsdp(state, block_names) if training.fsdp else None,
    )


def _fsdp(state: PartialState, block_names: Sequence[str]) -> FullyShardedDataParallelPlugin:
    """FSDP2, one shard per block, in the precision that replicas of the model would have: see `ScaleForward`.

    Accelerate would cast weights, gradients, inputs and outputs to half precision instead of using autocast:
    boxes would be rounded to whole pixels, above 256 to even ones.
    """
    if state.num_processes == 1:
        raise UsageError(
            "training.fsdp needs several processes: `accelerate launch` or `torchrun`, or leave it out"
        )
    if state.device.type == "cpu":
        # FSDP2 works over gloo too, but Accelerate offers it for accelerators only.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=list(block_names),
        cpu_ram_efficient_loading=False,
        mixed_precision_policy=MixedPrecisionPolicy(cast_forward_inputs=False),
    )


def evaluation_batch_size(config: RunConfig) -> int:
    """Images per batch of an evaluation: at most a micro-batch of training and `MAX_EVALUATION_BATCH`.

    The same for any number of processes, so that metrics are the same to the last bit.
    """
    micro_batch = config.training.batch_size // config.training.gradient_accumulation_steps
    return min(max(micro_batch, 1), MAX_EVALUATION_BATCH)

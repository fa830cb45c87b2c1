"""`ramstrans data shard`."""

from pathlib import Path

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt

from ramstrans.commands.options import Parser, takes_data
from ramstrans.console import progress_bar
from ramstrans.data.config import DataConfig
from ramstrans.errors import UsageError
from ramstrans.files import check_new_folder

_LOADING_FIELDS = {
    *("resize", "crop", "fit", "flip", "color_jitter", "rand_augment", "rand_magnitude", "random_erasing"),
    *("zoom_pixels", "balance", "shuffle_window", "num_workers", "cache", "cache_dir", "folds", "fold"),
}
"""Fields of DataConfig that do not determine which images there are; and folds, which are several sets."""


def add_options(parser: Parser) -> None:
    """Options of `data shard`."""
    takes_data(parser)
    parser.add_argument("output", type=Path, help="Folder to create.")
    parser.add_class_arguments(DataConfig, "data", skip=_LOADING_FIELDS)
    parser.set_defaults({"data.val_fraction": None})  # the splits that `train` draws for a set of one's own
    parser.add_argument(
        "--max_bytes", type=PositiveInt, default=1_000_000_000, help="Maximum bytes of images per shard."
    )
    parser.add_argument("--max_images", type=PositiveInt, default=10_000, help="Maximum images per shard.")
    parser.add_argument(
        "--seed", type=NonNegativeInt, default=0, help="Seed that distributes training images over shards."
    )


def run(options: Namespace, _given: list[str]) -> int:
    """Write a data set and its splits into tar shards for WebDataset and `--data.name shards`."""
    from ramstrans.data.build import build_image_set, drop_unreadable
    from ramstrans.data.sharding.writer import write_shards

    output: Path = options.output
    config = DataConfig(**vars(options.data))
    if config.root is None:
        raise UsageError("give the data set: `ramstrans data shard DATA OUTPUT`, or --data.root")
    if config.multi_label:
        raise UsageError(
            "shards hold one label per image, and data.multi_label has several; train on the table"
        )
    check_new_folder(output)
    with progress_bar() as progress:
        images, _ = drop_unreadable(build_image_set(config, progress), config, progress)
        write_shards(
            images,
            output,
            root=config.root,
            max_bytes=options.max_bytes,
            max_images=options.max_images,
            seed=options.seed,
            progress=progress,
        )
    print(output)  # noqa: T201
    return 0

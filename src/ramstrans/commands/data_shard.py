"""`ramstrans data shard`."""

from pathlib import Path

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt

from ramstrans.commands.options import Parser
from ramstrans.console import progress_bar
from ramstrans.data.config import DataConfig, DatasetFormat

_HOW_THEY_ARE_READ = {
    *("resize", "crop", "flip", "color_jitter", "rand_augment", "rand_magnitude", "random_erasing"),
    *("balance", "shuffle_window", "num_workers", "cache", "cache_dir"),
}
"""Fields of DataConfig that do not say which photographs there are."""


def add_options(parser: Parser) -> None:
    """Options of `data shard`."""
    parser.add_argument("root", type=Path, help="Folder or table of the data set.")
    parser.add_argument("output", type=Path, help="Folder to make.")
    parser.add_argument("--data.name", type=DatasetFormat | None, help="Layout; default: by what lies there.")
    parser.add_class_arguments(DataConfig, "data", skip={"name", "root", *_HOW_THEY_ARE_READ})
    parser.add_argument(
        "--max_bytes", type=PositiveInt, default=1_000_000_000, help="Of the photographs in a shard."
    )
    parser.add_argument("--max_images", type=PositiveInt, default=10_000, help="Photographs in a shard.")
    parser.add_argument(
        "--seed", type=NonNegativeInt, default=0, help="Deals the training images to the shards."
    )


def run(options: Namespace, _given: list[str]) -> int:
    """Write a data set into tar shards for WebDataset and `--data.name shards`, its splits drawn."""
    from ramstrans.data.build import build_image_set, detect_format, drop_unreadable
    from ramstrans.data.sharding.writer import write_shards

    fields = vars(options.data) | {"root": options.root}
    config = DataConfig(**fields | {"name": fields["name"] or detect_format(options.root)})
    with progress_bar() as progress:
        images = build_image_set(config, progress)
        images, _ = drop_unreadable(images, config, progress)
        write_shards(
            images,
            options.output,
            root=options.root,
            max_bytes=options.max_bytes,
            max_images=options.max_images,
            seed=options.seed,
            progress=progress,
        )
    print(options.output)  # noqa: T201
    return 0

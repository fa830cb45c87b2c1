"""`ramstrans data shard`."""

from pathlib import Path

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt

from ramstrans.commands.options import Parser
from ramstrans.console import progress_bar
from ramstrans.data.config import DataConfig, DatasetFormat

_LOADING_FIELDS = {
    *("resize", "crop", "fit", "flip", "color_jitter", "rand_augment", "rand_magnitude", "random_erasing"),
    *("zoom_pixels", "balance", "shuffle_window", "num_workers", "cache", "cache_dir"),
}
"""Fields of DataConfig that do not determine which images there are."""


def add_options(parser: Parser) -> None:
    """Options of `data shard`."""
    parser.add_argument("root", type=Path, help="Folder or table of the data set.")
    parser.add_argument("output", type=Path, help="Folder to create.")
    parser.add_argument("--data.name", type=DatasetFormat | None, help="Format; detected by default.")
    parser.add_class_arguments(DataConfig, "data", skip={"name", "root", *_LOADING_FIELDS})
    parser.add_argument(
        "--max_bytes", type=PositiveInt, default=1_000_000_000, help="Maximum bytes of images per shard."
    )
    parser.add_argument("--max_images", type=PositiveInt, default=10_000, help="Maximum images per shard.")
    parser.add_argument(
        "--seed", type=NonNegativeInt, default=0, help="Seed that distributes training images over shards."
    )


def run(options: Namespace, _given: list[str]) -> int:
    """Write a data set and its splits into tar shards for WebDataset and `--data.name shards`."""
    from ramstrans.data.build import build_image_set, detect_format, drop_unreadable
    from ramstrans.data.sharding.writer import write_shards

    root: Path = options.root
    output: Path = options.output
    fields = vars(options.data) | {"root": root}
    config = DataConfig(**fields | {"name": fields["name"] or detect_format(root)})
    with progress_bar() as progress:
        images, _ = drop_unreadable(build_image_set(config, progress), config, progress)
        write_shards(
            images,
            output,
            root=root,
            max_bytes=options.max_bytes,
            max_images=options.max_images,
            seed=options.seed,
            progress=progress,
        )
    print(output)  # noqa: T201
    return 0

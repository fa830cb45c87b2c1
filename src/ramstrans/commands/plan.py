"""`ramstrans plan`."""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands import train
from ramstrans.commands.configs import filled_in
from ramstrans.commands.options import Parser
from ramstrans.commands.plan_tables import (
    CHOOSE_NOTES,
    NOTES,
    candidates_table,
    ranking_table,
    search_notes,
    trials_table,
)
from ramstrans.console import Progress, format_duration, progress_bar, results
from ramstrans.errors import UsageError
from ramstrans.files import check_output, check_output_folder
from ramstrans.options import parse_bytes, parse_duration
from ramstrans.plain import counted
from ramstrans.training.config import SEARCH_FILE, RunConfig

if TYPE_CHECKING:
    from rich.table import Table

    from ramstrans.data.records import Split

logger = logging.getLogger(__name__)

IMPORTANT = {
    "What fits": ("--memory", "--processes"),
    "Which model": ("--choose", "--time"),
    "Which recipe": ("--lr_range", "--search", "--output"),
    "Run": ("--config", "--model.backbone", "--training.epochs"),
}
"""The options that `--help` shows."""

MODES = {
    "choose": ("time", "memory", "processes", "num_images", "backbones", "image_sizes"),
    "lr_range": ("output", "overwrite"),
    "search": ("time", "output", "overwrite"),
    "": ("memory", "processes", "num_images"),
}
"""What `plan` can do, by the option that asks for it, and the options that each has."""


def add_options(parser: Parser) -> None:
    """Options of `plan`: those of `train`, and the resources and size of the run."""
    train.add_run_options(parser, skip={"output", "overwrite"})
    parser.important = IMPORTANT
    parser.add_argument(
        "--memory",
        type=str | None,
        help="Memory per process, e.g. 12GB; default: what is free on this device.",
    )
    parser.add_argument(
        "--processes",
        type=PositiveInt | None,
        help="Processes that divide the images of a step (DDP); default: 1.",
    )
    parser.add_argument(
        "--num_images", type=PositiveInt | None, help="Training images; default: those of DATA."
    )
    parser.add_argument(
        "--choose", type=bool, default=False, help="Rank backbones and image sizes by what fits."
    )
    parser.add_argument(
        "--time",
        type=str | None,
        help="What the run may take with --choose, or after which no trial of a --search starts, e.g. 1h30m.",
    )
    parser.add_argument(
        "--backbones",
        type=str,
        nargs="+",
        help="With --choose: names of timm's models; default: DeiT and ViT, all sizes.",
    )
    parser.add_argument(
        "--image_sizes", type=PositiveInt, nargs="+", help="With --choose: sides in pixels; default: 224 448."
    )
    parser.add_argument(
        "--lr_range",
        type=bool,
        default=False,
        help="Find a learning rate by a range test on training images.",
    )
    parser.add_argument(
        "--search",
        type=PositiveInt | None,
        help="Find a recipe by so many short runs, judged on validation images; needs the extra `search`.",
    )
    parser.add_argument(
        "--output",
        type=Path | None,
        help="PNG file of --lr_range (default: lr_range.png), or folder of --search (default: "
        "runs/search-<data name>-<backbone>), which goes on if it is there.",
    )
    parser.add_argument("--overwrite", type=bool, default=False, help="Replace that file or folder.")


def run(options: Namespace, given: list[str]) -> int:
    """Measure which batch, accumulation and precision fit; or choose a model, a learning rate, a recipe."""
    planned = PLANS[mode_of(options)]
    config = replace(train.run_config(options), output=None, overwrite=False)  # which are not the run's
    if options.search is not None and config.data.multi_label:
        raise UsageError("--search compares top-1, which does not go with several labels (data.multi_label)")
    options.time = None if options.time is None else parse_duration(options.time)
    options.memory = None if options.memory is None else parse_bytes(options.memory)
    options.processes = options.processes or 1
    config = filled_in(config, given[1:], add_options)
    planned(config, options)
    return 0


def mode_of(options: Namespace) -> str:
    """The option that says what `plan` is to do; empty: measure what fits.

    Raises:
        UsageError: There are two, or an option has no effect with it.
    """
    modes = [mode for mode in MODES if mode and options[mode]]
    if len(modes) > 1:
        raise UsageError(f"--{modes[0]} and --{modes[1]} are two plans; give one of them")
    mode = modes[0] if modes else ""
    for name in dict.fromkeys(name for names in MODES.values() for name in names):
        if options[name] and name not in MODES[mode]:
            needed = " or ".join(f"--{other}" for other in MODES if other and name in MODES[other])
            reason = f"with --{mode}" if mode else f"without {needed}"
            raise UsageError(f"--{name} has no effect {reason}; leave it out")
    if mode == "choose" and options.time is None:
        raise UsageError("--choose needs the time that the run may take; give e.g. --time 2h")
    return mode


def run_plan(config: RunConfig, options: Namespace) -> None:
    """Measure which batch, accumulation, checkpointing and precision fit into memory."""
    if config.training.is_probe:
        raise UsageError(
            "plan measures training steps, and a linear probe takes none: it computes features once and fits "
            "the head; `ramstrans train` with the same options and --dry_run true estimates its time"
        )
    from ramstrans.training.memory import format_bytes
    from ramstrans.training.plan import plan

    how = {"memory": options.memory, "processes": options.processes}
    with progress_bar() as progress:
        config, num_images = workload(config, options, progress)
        planned = plan(config, num_images["train"], **how, progress=progress)
    summary = (
        f"{counted(config.training.batch_size, 'image')} per step, {planned.images} per process; "
        f"{planned.steps:,} steps; {format_bytes(planned.memory)} per process; measured on {planned.device}"
    )
    print_plan(summary, candidates_table(planned), NOTES)
    print_options(planned.options(planned.best()))


def run_choose(config: RunConfig, options: Namespace) -> None:
    """Rank backbones and image sizes by what fits into time and memory."""
    from ramstrans.training.choose import BACKBONES, IMAGE_SIZES, check_choosable, choose
    from ramstrans.training.memory import format_bytes

    check_choosable(config)
    how = {"memory": options.memory, "processes": options.processes}
    how |= {"backbones": options.backbones or BACKBONES, "image_sizes": options.image_sizes or IMAGE_SIZES}
    with progress_bar() as progress:
        config, num_images = workload(config, options, progress)
        ranking = choose(config, num_images, options.time, **how, progress=progress)
    assert config.training.epochs is not None, "filled in by the number of images"
    summary = (
        f"{counted(config.training.epochs, 'epoch')} of {counted(num_images['train'], 'image')}; "
        f"{format_duration(options.time)}; {format_bytes(ranking.memory)} per process; "
        f"measured on {ranking.device} in {config.training.precision}"
    )
    print_plan(summary, ranking_table(ranking), CHOOSE_NOTES)
    print_options(ranking.options(ranking.best()))


def run_lr_range(config: RunConfig, options: Namespace) -> None:
    """Find a learning rate by a range test, with its plot."""
    check_steps(config, "lr_range")
    output = options.output or Path("lr_range.png")
    check_output(output, overwrite=options.overwrite, suffixes=(".png",))
    from ramstrans.training.lr_range import lr_range, plot_lr_range
    from ramstrans.training.run import prepare

    with progress_bar() as progress:
        found = lr_range(prepare(config, progress), progress)
    plot_lr_range(found, config.training.lr, output)
    print_plan(
        f"{counted(len(found.rates), 'step')} of {counted(config.training.batch_size, 'image')}, rates from "
        f"{found.rates[0]:.1e} to {found.rates[-1]:.1e}; the loss falls fastest at {found.suggested:.2g} and "
        f"is lowest at {found.lowest:.2g}; the recipe has {config.training.lr:.2g}"
    )
    logger.info("plot: %s", output)
    print_options(f"--training.lr {found.suggested:.2g}")


def run_search(config: RunConfig, options: Namespace) -> None:
    """Find a recipe by short runs on the validation images, with a table and a plot."""
    check_steps(config, "search")
    output = options.output or Path("runs") / f"search-{config.data.name}-{config.model.backbone}"
    check_output_folder(output, SEARCH_FILE, overwrite=True)
    from ramstrans.training.run import prepare
    from ramstrans.training.search import check_optuna, options_for, plot_search, ranked, search

    check_optuna()
    how = {"seconds": options.time, "overwrite": options.overwrite}
    with progress_bar() as progress:
        prepared = prepare(config, progress)
        trials = ranked(search(prepared, options.search, output, **how, progress=progress))
    plot_search(trials, output / "search.png")
    print_plan(trials_table(trials), *search_notes(trials[0], len(prepared.images.of_split("val"))))
    logger.info("plot: %s", output / "search.png")
    print_options(options_for(trials[0].params))


PLANS = {"choose": run_choose, "lr_range": run_lr_range, "search": run_search, "": run_plan}


def print_plan(*parts: "str | Table") -> None:
    """Print what was measured, lines and tables."""
    console = results()
    for part in parts:
        console.print(part, markup=False, highlight=False)


def print_options(line: str) -> None:
    """Print the result of every plan, the last line: options of `train`."""
    results().print(line, markup=False, highlight=False, soft_wrap=True)


def check_steps(config: RunConfig, mode: str) -> None:
    """Raise UsageError unless a run takes steps, in one process."""
    if config.training.is_probe:
        raise UsageError(
            f"a linear probe has no recipe to be found by --{mode}; leave out --training.finetune head"
        )
    if config.training.fsdp or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            f"--{mode} runs in one process; leave out --training.fsdp, torchrun and accelerate launch"
        )


def workload(
    config: RunConfig, options: Namespace, progress: Progress
) -> tuple[RunConfig, "dict[Split, int]"]:
    """Return the run to plan, its number of classes filled in, and its number of images of each split.

    Without a data set only the training images are known.

    Raises:
        UsageError: Neither a data set nor the numbers were given.
        ConfigError: The data set has another number of classes.
        DataError: The data set cannot be used.
    """
    from ramstrans.data.records import SPLITS
    from ramstrans.training.setup import with_classes_of, with_length_for

    given = options.num_images
    has_numbers = None not in (given, config.model.num_classes)
    if config.data.root is not None or (config.data.name == "toybirds" and not has_numbers):
        from ramstrans.data.build import build_image_set

        images = build_image_set(config.data, progress)
        num_images = {split: len(images.of_split(split)) for split in SPLITS}
        config = with_classes_of(config, images)
        num_images["train"] = given or num_images["train"]
    elif not has_numbers:
        raise UsageError(
            "plan needs the number of images and classes; give DATA, or --num_images and --model.num_classes"
        )
    else:
        num_images = {"train": given, "val": 0, "test": 0}
    return with_length_for(config, num_images["train"], num_images["val"]), num_images

"""`ramstrans data check`."""

import logging
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands.options import Parser, takes_data
from ramstrans.console import progress_bar, results
from ramstrans.data.config import DataConfig
from ramstrans.data.detect import check_root
from ramstrans.errors import DataError, UsageError
from ramstrans.files import check_output, write_file
from ramstrans.options import Precision

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ramstrans.console import Progress
    from ramstrans.data.audit.findings import Finding
    from ramstrans.data.records import ImageSet

logger = logging.getLogger(__name__)

DEFAULT_SIDE = 224
"""Shorter side in pixels below which an image is tiny, unless a crop or a model sets another."""

MAX_LINES = 20
"""Findings of each kind on the terminal; a file has them all."""

MAX_EXAMPLES = 3


def add_options(parser: Parser) -> None:
    """Options of `data check`."""
    takes_data(parser)
    parser.add_class_arguments(DataConfig, "data")
    parser.set_defaults({"data.val_fraction": None})  # the splits that `train` draws for a set of one's own
    parser.add_argument(
        "--model",
        type=Path | None,
        help="Run, saved model or hf://user/name; reports the labels that it contradicts.",
    )
    parser.add_argument("--output", type=Path | None, help="Write all findings to this .json or .csv file.")
    parser.add_argument(
        "--write",
        type=Path | None,
        help="Write the data set without what was found to this .csv file, a table for --data.root.",
    )
    parser.add_argument(
        "--leave_out",
        nargs="+",
        type=str,
        default=["errors"],
        help="With --write: kinds of findings to leave out, e.g. 'label issue'; errors: all kinds of errors.",
    )
    parser.add_argument("--overwrite", type=bool, default=False, help="Replace these files.")
    parser.add_argument("--batch_size", type=PositiveInt, default=32, help="Images per batch, with --model.")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 or mps.")
    parser.add_argument(
        "--precision", type=Precision | None, help="Default: as the run was trained, else fp32."
    )


def run(options: Namespace, _given: list[str]) -> int:
    """Find what makes results misleading: files, duplicates, boxes, classes, labels; exits 3 on errors."""
    from ramstrans.data.audit import findings as audit

    config = DataConfig(**vars(options.data))
    check_root(config)
    check_output(options.output, overwrite=options.overwrite, suffixes=audit.SUFFIXES)
    kinds = check_write(options, config)
    if options.model is not None:
        check_labels(config, options.model)
    from ramstrans.data.audit import clean
    from ramstrans.data.build import draw_splits, read_image_set
    from ramstrans.data.splits import check_classes

    with progress_bar() as progress:
        as_read = read_image_set(config, progress)
        check_classes(as_read)
        images = draw_splits(as_read, config)
        findings = find_all(images, config, options.model, progress)
        if options.model is not None:
            from ramstrans.evaluation.label_errors import find_label_issues

            how = {"device": options.device, "batch_size": options.batch_size, "precision": options.precision}
            bad = {path for finding in findings if finding.kind == "unreadable" for path in finding.paths}
            findings += find_label_issues(options.model, config, unreadable=bad, **how, progress=progress)
    findings = audit.sort_findings(findings)
    print_findings(images, findings, results())
    if not as_read.of_split("test"):
        suggest_groups(findings)
    if options.output is not None:
        write_file(options.output, audit.encode_findings(findings, options.output.suffix))
        logger.info("findings: %s", options.output)
    if options.write is not None:
        remaining = clean.without_findings(images, findings, kinds)
        write_file(options.write, clean.encode_table(remaining, options.write.parent))
        logger.info("%s: %s", options.write, clean.summary(images, remaining, findings, kinds))
    return DataError.exit_code if any(finding.severity == "error" for finding in findings) else 0


def suggest_groups(findings: "list[Finding]") -> None:
    """Log how to keep together what was found in several of the splits that were drawn, if anything was."""
    if {"taken together across splits", "alike across splits"} & {finding.kind for finding in findings}:
        logger.info(
            "splits that keep together what belongs together: --data.group_day true, or by animal or site "
            "--data.group_level N (folders), --data.group_column NAME (tables)"
        )


def check_labels(config: DataConfig, model: Path) -> None:
    """Raise UsageError if images may have several labels, for which label issues are not defined."""
    from ramstrans.saved.metadata import load_metadata

    if config.multi_label or load_metadata(model).model.multi_label:
        raise UsageError(
            "--model finds images whose one label is wrong, and here images may have several (multi_label); "
            "leave --model out"
        )


def check_write(options: Namespace, config: DataConfig) -> set[str]:
    """The kinds to leave out; raises unless the table can be written.

    Raises:
        UsageError: A kind is unknown, or the images are not files of their own.
        OutputError: The file exists, or is not a .csv file.
    """
    from ramstrans.data.audit.clean import kinds_to_leave_out

    kinds = kinds_to_leave_out(options.leave_out)
    if options.write is None:
        if options.leave_out != ["errors"]:
            logger.warning("--leave_out is ignored without --write")
        return kinds
    check_output(options.write, overwrite=options.overwrite, suffixes=(".csv",), option="--write")
    if options.output is not None and options.output.resolve() == options.write.resolve():
        raise UsageError(f"--write {options.write} is the file of --output too; give another")
    if config.name in ("shards", "hugging_face"):
        raise UsageError(f"--write needs images in files of their own, which {config.name} has not")
    if config.root is not None and config.root.resolve() == options.write.resolve():
        raise UsageError(f"--write {options.write} is the table that is checked; give another")
    if "label issue" in kinds and options.model is None:
        raise UsageError("--leave_out 'label issue' needs a trained model, which finds them: --model RUN")
    return kinds


def find_all(
    images: "ImageSet", config: DataConfig, model: Path | None, progress: "Progress"
) -> "list[Finding]":
    """Audit files, annotations, classes and shards; a given model must have these classes."""
    from ramstrans.data.audit.findings import Finding
    from ramstrans.data.audit.images import audit_images
    from ramstrans.data.detect import MANIFEST
    from ramstrans.data.sharding.manifest import verify_shards

    smallest_side = DEFAULT_SIDE
    if model is not None:
        from ramstrans.evaluation.images import with_labels_of
        from ramstrans.saved.metadata import load_metadata

        metadata = load_metadata(model)
        with_labels_of(metadata, images, "train")
        smallest_side = max(metadata.model.input_size)
    if config.crop is not None:
        smallest_side = config.crop if isinstance(config.crop, int) else max(config.crop)
    findings = audit_images(
        images,
        smallest_side=smallest_side,
        max_pixels=config.max_pixels,
        progress=progress,
        timeout=config.read_timeout,
    )
    if config.name == "shards" and config.root is not None and (config.root / MANIFEST).is_file():
        errors = verify_shards(config.root, progress)
        findings += [Finding("damaged shard", (), str(error)) for error in errors]
    return findings


def print_findings(images: "ImageSet", findings: "list[Finding]", console: "Console") -> None:
    """Print a table of the splits, one of the kinds of findings, and a line per finding (sorted by kind)."""
    console.print(split_table(images))
    by_kind = {kind: list(group) for kind, group in groupby(findings, key=attrgetter("kind"))}
    if by_kind:
        console.print(kind_table(by_kind))
    for kind, group in by_kind.items():
        for finding in group[:MAX_LINES]:
            console.print(str(finding), markup=False, highlight=False, soft_wrap=True)
        if len(group) > MAX_LINES:
            more = f"{kind}: {len(group) - MAX_LINES} more; --output FILE.csv has them all"
            console.print(more, soft_wrap=True)


def split_table(images: "ImageSet") -> "Table":
    """Count images and classes of each split."""
    from rich.table import Table

    from ramstrans.data.records import SPLITS

    table = Table("split", "images", "classes", "fewest per class", "most per class")
    for split in SPLITS:
        counts = [count for count in images.counts(split).values() if count]
        cells = sum(counts), len(counts), min(counts, default=0), max(counts, default=0)
        table.add_row(split, *map(str, cells))
    return table


def kind_table(by_kind: "dict[str, list[Finding]]") -> "Table":
    """Count the findings of each kind, with a few examples."""
    from rich.table import Table
    from rich.text import Text

    from ramstrans.data.audit.findings import KINDS, examples

    table = Table("finding", "severity", "count", "examples")
    for kind, group in by_kind.items():
        style = "bold red" if KINDS[kind] == "error" else ""
        table.add_row(kind, Text(KINDS[kind], style), str(len(group)), Text(examples(group[:MAX_EXAMPLES])))
    return table

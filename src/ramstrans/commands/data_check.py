"""`ramstrans data check`."""

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands.options import Parser, add_device_options
from ramstrans.console import progress_bar, results, say
from ramstrans.data.config import DataConfig
from ramstrans.errors import DataError, OutputError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ramstrans.console import Progress
    from ramstrans.data.audit.findings import Finding
    from ramstrans.data.records import ImageSet

DEFAULT_SIDE = 224
"""Below it an image is tiny, where neither a crop nor a model says what is wanted."""

MAX_LINES = 20
"""Of one kind on the terminal; a file has them all."""

MAX_EXAMPLES = 3


def add_options(parser: Parser) -> None:
    """Options of `data check`."""
    parser.add_argument(
        "root",
        nargs="?",
        type=Path | None,
        help="Folder or table; its layout is guessed if not given.",
    )
    parser.add_class_arguments(DataConfig, "data")
    parser.set_defaults({"data.name": None})  # so that what is not given can be told from toybirds
    parser.add_argument(
        "--model",
        type=Path | None,
        help="Run or model folder; names the labels that it doubts.",
    )
    parser.add_argument("--output", type=Path | None, help="Write all findings to this .json or .csv file.")
    parser.add_argument("--overwrite", type=bool, default=False, help="Replace that file.")
    parser.add_argument("--batch_size", type=PositiveInt, default=32, help="Images at once, with --model.")
    add_device_options(parser)


def run(options: Namespace, _given: list[str]) -> int:
    """Look for what would spoil a result: files, duplicates, boxes, classes, labels; exit code 3 if found."""
    from ramstrans.data.audit.findings import encode_findings, has_errors, sort_findings
    from ramstrans.data.build import build_image_set
    from ramstrans.files import write_file

    config = data_config(options)
    check_output(options.output, overwrite=options.overwrite)
    with progress_bar() as progress:
        images = build_image_set(config, progress)
        findings = sort_findings(find_all(images, config, options, progress))
    print_findings(images, findings, results())
    if options.output is not None:
        write_file(options.output, encode_findings(findings, options.output.suffix))
        say(f"findings: {options.output}")
    return DataError.exit_code if has_errors(findings) else 0


def data_config(options: Namespace) -> DataConfig:
    """The data that ROOT, or --data.root, and the other options name.

    Raises:
        UsageError: Both roots were given.
    """
    from ramstrans.data.build import detect_format

    values = dict(vars(options.data))
    if options.root is not None and values["root"] is not None:
        raise UsageError(f"ROOT is {options.root} and --data.root {values['root']}; give one of them")
    values["root"] = root = options.root or values["root"]
    if values["name"] is None:
        values["name"] = "toybirds" if root is None else detect_format(root)
    return DataConfig(**values)


def check_output(path: Path | None, *, overwrite: bool) -> None:
    """Raise if the findings could not be written, before anything is read.

    Raises:
        UsageError: An unknown suffix.
        OutputError: The file exists, or is a folder.
    """
    from ramstrans.data.audit.findings import check_suffix

    if path is None:
        return
    check_suffix(path)
    if path.is_dir():
        raise OutputError(f"--output {path} is a folder; give a file")
    if path.exists() and not overwrite:
        raise OutputError(f"--output {path} exists; give another, or --overwrite true to replace it")


def find_all(
    images: "ImageSet", config: DataConfig, options: Namespace, progress: "Progress"
) -> "list[Finding]":
    """What is wrong with the data, and what a model doubts, if one is given."""
    from ramstrans.data.audit.inspection import audit_images, record_ids, with_ids
    from ramstrans.data.build import DEFAULT_TOYBIRDS_ROOT

    smallest_side = DEFAULT_SIDE
    if options.model is not None:
        from ramstrans.evaluation.evaluate import with_labels_of
        from ramstrans.saved.model import load_metadata

        metadata = load_metadata(options.model)
        with_labels_of(metadata, images, "train")  # raises now, not after all files were read
        smallest_side = max(metadata.model.input_size)
    if config.crop is not None:
        smallest_side = config.crop if isinstance(config.crop, int) else max(config.crop)
    ids = record_ids(config.root or DEFAULT_TOYBIRDS_ROOT)
    findings = audit_images(
        images,
        smallest_side=smallest_side,
        ids=ids,
        max_pixels=config.max_pixels,
        progress=lambda done, total: progress(done, total, "checking files"),
    )
    findings += find_damaged_shards(config, progress)
    if options.model is not None:
        doubted = find_doubted(config, options, findings, progress)
        findings += [with_ids(finding, ids) for finding in doubted]
    return findings


def find_damaged_shards(config: DataConfig, progress: "Progress") -> "list[Finding]":
    """Shards that are not as they were written; none where there are no shards, or no checksums of them."""
    from ramstrans.data.audit.findings import Finding
    from ramstrans.data.sharding.manifest import MANIFEST, verify_shards

    if config.name != "shards" or config.root is None or not (config.root / MANIFEST).is_file():
        return []
    errors = verify_shards(config.root, progress)
    return [Finding("damaged shard", (), str(error)) for error in errors]


def find_doubted(
    config: DataConfig, options: Namespace, findings: "list[Finding]", progress: "Progress"
) -> "list[Finding]":
    """The labels that the model of the options doubts, of files that are readable."""
    from ramstrans.evaluation.label_errors import find_label_issues, to_finding

    unreadable = {path for finding in findings if finding.kind == "unreadable" for path in finding.paths}
    doubts = find_label_issues(
        options.model,
        config,
        unreadable=unreadable,
        batch_size=options.batch_size,
        device=options.device,
        precision=options.precision,
        progress=progress,
    )
    say(str(doubts))
    return [to_finding(suspicion) for suspicion in doubts.issues]


def print_findings(images: "ImageSet", findings: "list[Finding]", console: "Console") -> None:
    """Two tables, of the splits and of the kinds of findings, then the findings, a line each."""
    console.print(split_table(images))
    if findings:
        console.print(kind_table(findings))
    shown: dict[str, int] = {}
    for finding in findings:
        shown[finding.kind] = shown.get(finding.kind, 0) + 1
        if shown[finding.kind] <= MAX_LINES:
            console.print(str(finding), markup=False, highlight=False, soft_wrap=True)
    for kind, count in shown.items():
        if count > MAX_LINES:
            console.print(f"{kind}: {count - MAX_LINES} more; --output FILE.csv has them all", soft_wrap=True)


def split_table(images: "ImageSet") -> "Table":
    """Images and classes of each split."""
    from rich.table import Table

    from ramstrans.data.records import SPLITS

    table = Table("split", "images", "classes", "fewest a class", "most a class")
    for split in SPLITS:
        counts = [count for count in images.counts(split).values() if count]
        table.add_row(
            split, *map(str, (sum(counts), len(counts), min(counts, default=0), max(counts, default=0)))
        )
    return table


def kind_table(findings: "list[Finding]") -> "Table":
    """How many findings of each kind there are, with a few examples."""
    from collections import Counter

    from rich.table import Table
    from rich.text import Text

    from ramstrans.data.audit.findings import KINDS, examples

    table = Table("finding", "severity", "count", "examples")
    for kind, count in Counter(finding.kind for finding in findings).items():
        few = [finding for finding in findings if finding.kind == kind][:MAX_EXAMPLES]
        style = "bold red" if KINDS[kind] == "spoils" else ""
        table.add_row(kind, Text(KINDS[kind], style), str(count), Text(examples(few)))
    return table

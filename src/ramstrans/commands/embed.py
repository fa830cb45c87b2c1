"""`ramstrans embed`."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands.options import Parser
from ramstrans.commands.predict import paths_of
from ramstrans.console import progress_of_many
from ramstrans.data.records import Split
from ramstrans.errors import UsageError
from ramstrans.hub import is_address
from ramstrans.options import Precision
from ramstrans.saved.metadata import load_metadata

if TYPE_CHECKING:
    from ramstrans.inference.predictor import Predictor

logger = logging.getLogger(__name__)


def add_options(parser: Parser) -> None:
    """Options of `embed`: the parameters of the function."""
    parser.add_argument("run", type=Path, help="Run folder, any saved model, or hf://user/name[@revision].")
    about = "Image files, folders, patterns, tables (.parquet, .csv) or .tar files; none with --split."
    parser.add_argument("inputs", nargs="*", type=str, help=about)
    parser.add_function_arguments(embed, as_group=False, skip={"run", "inputs"})


def run(options: Namespace, _given: list[str]) -> int:
    """Write the features of images into Parquet files."""
    return embed(**vars(options))


def embed(
    run: Path,
    inputs: list[str],
    output: Path | None = None,
    split: Split | None = None,
    index: bool = False,
    overwrite: bool = False,
    batch_size: PositiveInt = 32,
    partition_rows: PositiveInt = 4096,
    num_scales: PositiveInt | None = None,
    device: str = "auto",
    precision: Precision | None = None,
) -> int:
    """Write what the classifier reads of each image.

    Args:
        run: Run folder, any saved model, or hf://user/name[@revision] of the hub.
        inputs: Image files, folders, patterns such as 'photos/*.jpg', - for paths on standard input, tables
            (.parquet, .csv) with the columns path or bytes, and .tar files.
        output: Folder of Parquet files; an interrupted command keeps those that are whole, and the same
            command goes on there.
        split: Instead of INPUTS, a split of the data set that the run was trained on, with its classes.
        index: Write RUN/index: the training split, with thumbnails. `explain --against`, `similar` and the
            report show the nearest training photographs from there.
        overwrite: Replace that folder.
        batch_size: Images per batch.
        partition_rows: Most rows per file.
        num_scales: Use the first so many of the scales that were trained; default: all.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: Default: as the run was trained, else fp32. fp16 needs a GPU.

    Raises:
        UsageError: The options contradict each other.
        DataError: Nothing could be read, or one of the inputs does not exist; their rows are written.
    """
    split, folder = check_request(run, inputs, output, split, index=index)
    load_metadata(run)
    from ramstrans.inference.arguments import Arguments, check_any_read, resolve_arguments
    from ramstrans.inference.embeddings import write_embeddings
    from ramstrans.inference.partitions import PartitionFolder, partitions_of, summary
    from ramstrans.inference.predictor import Predictor
    from ramstrans.saved.embeddings import made_by

    predictor = Predictor.load(run, device, precision, num_scales=num_scales)
    named, labels = Arguments((), ()), dict[str, str]()
    paths: Iterable[str | Path]
    if split is None:
        named = resolve_arguments(inputs)
        paths = (Path(path).absolute() for path in paths_of(named)[0])
    else:
        labels = labelled_paths(predictor, split)
        paths = labels
    partitions = partitions_of(paths, partition_rows)
    made = made_by(predictor.model, predictor.metadata)
    settings = {"features": made.__dict__, "precision": predictor.precision, "thumbnails": index}
    found = PartitionFolder(folder, settings, partitions, overwrite=overwrite)
    if written := found.written():
        logger.info("going on after %s", summary(written))
    done = {entry.partition for entry in written}
    with progress_of_many() as progress:
        for partition in partitions:
            if partition.index not in done:
                written.append(
                    write_embeddings(partition, predictor, made, folder, batch_size, labels, thumbnails=index)
                )
                progress(len(written), len(partitions), "embedding partitions")
    found.finish(written)
    logger.info("%s: %s, %d x %d numbers each", folder, summary(written), made.num_scales, made.width)
    num_rows, num_unreadable = (sum(entry[column] for entry in written) for column in (1, 2))
    check_any_read(named, num_rows, num_rows - num_unreadable)
    return 0


def check_request(
    run: Path, inputs: list[str], output: Path | None, split: Split | None, *, index: bool
) -> tuple[Split | None, Path]:
    """The split to embed, None for the inputs, and the folder to write to.

    Raises:
        UsageError: The options contradict each other.
    """
    if index:
        given = [name for name, value in (("--output", output), ("--split", split)) if value is not None]
        given += ["INPUTS"] if inputs else []
        if given:
            raise UsageError(
                f"--index true embeds the training split into RUN/index; leave out {', '.join(given)}"
            )
        if is_address(run):
            raise UsageError(f"{run} is a copy from the hub, which is only read; give a run folder")
        from ramstrans.saved.embeddings import INDEX_FOLDER

        return "train", run / INDEX_FOLDER
    if (split is None) == (not inputs):
        raise UsageError("give images, or --split train, val or test of the run's own data, or --index true")
    if output is None:
        raise UsageError("embed writes Parquet files into a folder; give --output FOLDER, or --index true")
    return split, output


def labelled_paths(predictor: "Predictor", split: Split) -> dict[str, str]:
    """The files of a split of the run's own data set, with the names of their classes."""
    from ramstrans.console import progress_bar
    from ramstrans.evaluation.config import EvaluationData
    from ramstrans.evaluation.images import data_config, dataset_of, read_drawn
    from ramstrans.plain import join_labels

    metadata = predictor.metadata
    data = data_config(metadata.run_options("data"), EvaluationData())
    with progress_bar() as progress:
        dataset, left_out = dataset_of(
            metadata, read_drawn(metadata, data, progress).images, split, data, progress
        )
    for line in left_out:
        logger.warning("%s", line)
    return {
        str(record.path.absolute()): join_labels([metadata.class_names[label] for label in record.classes])
        for record in dataset.records
    }

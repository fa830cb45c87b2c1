"""`ramstrans embed`."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands.images import fill_folder, paths_of, takes_images
from ramstrans.commands.options import Parser
from ramstrans.data.records import Split
from ramstrans.errors import UsageError
from ramstrans.hub import is_address
from ramstrans.options import Precision
from ramstrans.saved.metadata import load_metadata

if TYPE_CHECKING:
    from ramstrans.inference.partitions import Partition, Written
    from ramstrans.inference.predictor import Predictor

logger = logging.getLogger(__name__)


def add_options(parser: Parser) -> None:
    """Options of `embed`: the parameters of the function."""
    about = "Image files, folders, patterns, tables (.parquet, .csv) or .tar files; none with --split."
    takes_images(parser, embed, about, nargs="*")


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
        run: Run folder, any saved model, or hf://user/name[@revision].
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
        num_scales: Use the first so many of the scales that were trained; default: all, of calcrop one.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: Default: as the run was trained, else fp32. fp16 needs a GPU.

    Raises:
        UsageError: The options contradict each other.
        DataError: Nothing could be read, or one of the inputs does not exist; their rows are written.
    """
    split, folder = check_request(run, inputs, output, split, index=index)
    load_metadata(run)
    from ramstrans.inference.arguments import Arguments, resolve_arguments
    from ramstrans.inference.embeddings import write_embeddings
    from ramstrans.inference.partitions import PartitionFolder, partitions_of
    from ramstrans.inference.predictor import Predictor
    from ramstrans.saved.embeddings import made_by

    predictor = Predictor.load(run, device, precision, num_scales=num_scales)
    named = resolve_arguments(inputs) if split is None else Arguments((), ())
    labels = {} if split is None else labelled_paths(predictor, split)
    paths = paths_of(named)[0] if split is None else labels
    partitions = partitions_of((Path(path).absolute() for path in paths), partition_rows)
    made = made_by(predictor.model, predictor.metadata)
    settings = {"features": made.__dict__, "precision": predictor.precision, "thumbnails": index}
    filled = PartitionFolder(folder, settings, partitions, overwrite=overwrite)

    def write(rest: Sequence["Partition"]) -> Iterator["Written"]:
        for partition in rest:
            yield write_embeddings(partition, predictor, made, folder, batch_size, labels, thumbnails=index)

    fill_folder(filled, named, write, "embedding", rows=f", {made.num_scales} x {made.width} numbers each")
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
    from ramstrans.plain import join_labels, utf8_text

    metadata = predictor.metadata
    data = data_config(metadata.run_options("data"), EvaluationData())
    with progress_bar() as progress:
        dataset, left_out = dataset_of(
            metadata, read_drawn(metadata, data, progress).images, split, data, progress
        )
    for line in left_out:
        logger.warning("%s", line)
    names = [utf8_text(name) for name in metadata.class_names]
    if not metadata.model.multi_label:
        return {str(record.path.absolute()): names[record.label] for record in dataset.records}
    return {
        str(record.path.absolute()): join_labels([names[label] for label in record.classes])
        for record in dataset.records
    }

"""`ramstrans add_class`."""

import logging
from pathlib import Path

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands.images import takes_images, unique_paths
from ramstrans.commands.options import Parser
from ramstrans.console import progress_bar
from ramstrans.errors import UsageError
from ramstrans.files import check_output_folder, make_folder
from ramstrans.options import Precision
from ramstrans.saved.metadata import CONFIG_FILE, load_metadata

logger = logging.getLogger(__name__)

ENOUGH = 5
"""Photographs from which docs/features.md has figures."""


def add_options(parser: Parser) -> None:
    """Options of `add_class`: the parameters of the function."""
    about = "Its photographs: files, folders, patterns such as 'photos/*.jpg', or - for a list."
    takes_images(parser, add_class, about)


def run(options: Namespace, _given: list[str]) -> int:
    """Add a class to a trained model from a few photographs, without training."""
    return add_class(**vars(options))


def add_class(
    run: Path,
    name: str,
    inputs: list[str],
    output: Path | None = None,
    overwrite: bool = False,
    batch_size: PositiveInt = 32,
    device: str = "auto",
    precision: Precision | None = None,
) -> int:
    """Write a copy of a model that knows one more class.

    The model is not changed. A few images of its own data set are looked at again.

    Args:
        run: Run folder, any saved model, or hf://user/name[@revision].
        name: Name of the new class.
        inputs: Its photographs, about 5.
        output: Folder of the new model.
        overwrite: Replace that folder.
        batch_size: Images per batch.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: Default: as the run was trained, else fp32. fp16 needs a GPU.

    Raises:
        UsageError: The model has the class, or the output is missing.
        DataError: A photograph, or the data set of the run, cannot be read.
    """
    if output is None:
        raise UsageError("add_class writes a new model; give --output FOLDER")
    if output.resolve() == run.resolve():
        raise UsageError(f"--output {output} is the model itself, which stays as it is; give another folder")
    check_output_folder(output, CONFIG_FILE, overwrite=overwrite)
    load_metadata(run)
    from ramstrans.inference.arguments import check_any_read, resolve_arguments
    from ramstrans.inference.imprint import imprint
    from ramstrans.inference.new_class import check_new_class, old_classes, photographs, save_with_class
    from ramstrans.inference.predictor import Predictor

    predictor, named = Predictor.load(run, device, precision), resolve_arguments(inputs)
    check_new_class(predictor, name)
    paths = [path.absolute() for path in unique_paths(named)]
    check_any_read(named, len(paths), len(paths))
    if len(paths) < ENOUGH:
        logger.warning(
            "%d of %d photographs: more of them, of different individuals, tell more", len(paths), ENOUGH
        )
    features = photographs(predictor, paths, batch_size)
    with progress_bar() as progress:
        old = old_classes(predictor, len(paths), batch_size, progress)
    row = imprint(features, old)
    make_folder(output, empty=overwrite)  # a report there would be of another model
    save_with_class(predictor, name, row, len(paths), output)
    logger.warning(
        "a calibration belongs to the classes before: the new model has none; `ramstrans calibrate %s` fits "
        "one once the new class is in its data set",
        output,
    )
    return 0

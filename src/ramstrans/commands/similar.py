"""`ramstrans similar`."""

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands.images import paths_of, takes_images
from ramstrans.commands.options import Parser
from ramstrans.errors import UsageError
from ramstrans.files import check_output
from ramstrans.options import Precision
from ramstrans.saved.metadata import load_metadata

if TYPE_CHECKING:
    from ramstrans.inference.neighbors import Similar

logger = logging.getLogger(__name__)

MAX_ROWS = 40
"""Images in a picture, at most."""


def add_options(parser: Parser) -> None:
    """Options of `similar`: the parameters of the function."""
    takes_images(parser, similar)


def run(options: Namespace, _given: list[str]) -> int:
    """Find the photographs that look most alike to the model; a JSON line per image."""
    return similar(**vars(options))


def similar(
    run: Path,
    inputs: list[str],
    among: Path | None = None,
    top_k: PositiveInt = 5,
    picture: Path | None = None,
    overwrite: bool = False,
    batch_size: PositiveInt = 32,
    num_scales: PositiveInt | None = None,
    device: str = "auto",
    precision: Precision | None = None,
) -> int:
    """Find similar photographs.

    Args:
        run: Run folder, any saved model, or hf://user/name[@revision].
        inputs: Images, folders, patterns such as 'photos/*.jpg', or - for a list.
        among: Folder or file of `ramstrans embed` that is searched; default: RUN/index.
        top_k: Photographs per image; the image itself, by its path, is left out.
        picture: PNG file of the images, each with what was found beside it.
        overwrite: Replace that file.
        batch_size: Images per batch.
        num_scales: Use the first so many of the scales that were trained; default: all, of calcrop one.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: Default: as the run was trained, else fp32. fp16 needs a GPU.

    Raises:
        DataError: Nothing could be read, or one of the inputs does not exist; the others have their lines.
        ConfigError: What is searched is of another model.
    """
    load_metadata(run)
    if picture is not None:
        check_output(picture, overwrite=overwrite, suffixes=(".png",))
    from ramstrans.hub import local_folder
    from ramstrans.inference.arguments import check_any_read, resolve_arguments
    from ramstrans.inference.neighbors import find_similar, plot_similar
    from ramstrans.inference.predictor import Predictor
    from ramstrans.saved.embeddings import INDEX_FOLDER, load_embeddings, made_by

    place = local_folder(run) / INDEX_FOLDER if among is None else among
    if among is None and not place.is_dir():
        raise UsageError(
            f"{run} has no index; make one with `ramstrans embed {run} --index true`, or give --among "
            "FOLDER, the features of other images"
        )
    predictor = Predictor.load(run, device, precision, num_scales=num_scales)
    embeddings = load_embeddings(place, made_by(predictor.model, predictor.metadata))
    named, num_rows, num_read = resolve_arguments(inputs), 0, 0
    shown: list[Similar] = []
    for found in find_similar(predictor, embeddings, paths_of(named)[0], top_k, batch_size):
        values: dict[str, Any] = {"path": found.path, "error": found.error, "similar": found.to_json()}
        sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")
        num_rows, num_read = num_rows + 1, num_read + (found.error is None)
        if picture is not None and found.error is None and len(shown) < MAX_ROWS:
            shown.append(found)
    if picture is not None and shown:
        plot_similar(shown, embeddings, picture)
        if num_read > MAX_ROWS:
            logger.warning("%s has the first %d of %d images", picture, MAX_ROWS, num_read)
    check_any_read(named, num_rows, num_read)
    return 0

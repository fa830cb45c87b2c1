"""`ramstrans explain`."""

import json
import logging
from pathlib import Path

from jsonargparse import Namespace

from ramstrans.commands.options import Parser
from ramstrans.files import check_output, check_outputs
from ramstrans.options import Precision
from ramstrans.saved.metadata import load_metadata

logger = logging.getLogger(__name__)


def add_options(parser: Parser) -> None:
    """Options of `explain`: the parameters of the function."""
    parser.add_function_arguments(explain, as_group=False, as_positional=True)


def run(options: Namespace, _given: list[str]) -> int:
    """Show what a model saw in one image: a figure, and JSON."""
    return explain(**vars(options))


def explain(
    run: Path,
    image: Path,
    output: Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    precision: Precision | None = None,
) -> int:
    """Explain the prediction for one image.

    Args:
        run: Run folder, or any saved model.
        image: The image.
        output: PNG file to write; default: IMAGE's name + -explained.png, in the current folder.
        overwrite: Replace that file, and the .json file beside it.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: Default: as the run was trained, else fp32. fp16 needs a GPU.
    """
    picture = output or Path(f"{image.stem}-explained.png")
    check_output(picture, overwrite=overwrite, suffixes=(".png",))
    check_outputs((picture, picture.with_suffix(".json")), overwrite=overwrite)
    load_metadata(run)
    from ramstrans.inference.explain import explain as explain_image
    from ramstrans.inference.predictor import Predictor

    predictor = Predictor.load(run, device, precision)
    values = explain_image(predictor, image, picture)
    print(json.dumps(values))  # noqa: T201
    logger.info("figure: %s, the same as JSON: %s", picture, picture.with_suffix(".json"))
    return 0

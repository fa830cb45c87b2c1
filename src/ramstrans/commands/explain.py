"""`ramstrans explain`."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.calibration.wanted import check_rank_confidence
from ramstrans.commands.images import takes_images, unique_paths
from ramstrans.commands.options import Parser
from ramstrans.errors import UnreadableImageError, UsageError
from ramstrans.models.config import SaliencyName
from ramstrans.options import Precision
from ramstrans.plain import counted
from ramstrans.saved.metadata import load_metadata

if TYPE_CHECKING:
    from ramstrans.inference.predictor import Predictor
    from ramstrans.saved.embeddings import Embeddings

logger = logging.getLogger(__name__)

FOLDER = Path("explained")
"""Where the figures of several images go by default."""

MAX_NAMED = 5
"""Classes of a prediction set that are named in a line."""


def add_options(parser: Parser) -> None:
    """Options of `explain`: the parameters of the function."""
    takes_images(parser, explain)


def run(options: Namespace, _given: list[str]) -> int:
    """Show what a model saw in images: a figure for each, JSON beside it, and a line in the terminal."""
    return explain(**vars(options))


def explain(
    run: Path,
    inputs: list[str],
    output: Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    precision: Precision | None = None,
    saliency: SaliencyName | None = None,
    num_scales: PositiveInt | None = None,
    rank_confidence: float | None = None,
    priors: Path | None = None,
    against: str | None = None,
) -> int:
    """Explain the predictions for images.

    Args:
        run: Run folder, any saved model, or hf://user/name[@revision].
        inputs: Images, folders, patterns such as 'photos/*.jpg', or - for a list.
        output: PNG file of one image, or folder for several; default: IMAGE's name + -explained.png in the
            current folder, or the folder explained.
        overwrite: Replace files that exist.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: Default: as the run was trained, else fp32. fp16 needs a GPU.
        saliency: Another one than the run was trained with: rollout, class_attention, pool_attention, cosine
            or cam, as far as the backbone can have it. Regions, and what later scales see, follow it.
        num_scales: Use the first so many of the scales that were trained; default: all, of calcrop one.
        rank_confidence: Probability that an answer at some rank of the taxonomy is to reach, above 0.5;
            default: that of `calibrate`.
        priors: List of the classes that occur, or table of weights by conditions; as in `predict`.
        against: Why the answer, and not this class? Its name, or runner_up for the second most probable one:
            adds what speaks for either at every scale and, if there is RUN/index (`embed --index true`), the
            nearest training photographs of both.

    Raises:
        DataError: Nothing could be read, or one of the inputs does not exist; the others are explained.
    """
    check_rank_confidence(rank_confidence)
    load_metadata(run)
    from ramstrans.inference.arguments import check_any_read, resolve_arguments
    from ramstrans.inference.contrast import check_class
    from ramstrans.inference.explain import check_pictures
    from ramstrans.inference.explain import explain as explain_image
    from ramstrans.inference.predictor import Predictor
    from ramstrans.inference.tables import with_tables

    named, cells = with_tables(resolve_arguments(inputs), with_cells=priors is not None)
    images = unique_paths(named)
    pictures = choose_pictures(images, output)
    check_pictures(pictures, overwrite=overwrite)
    predictor = Predictor.load(
        run,
        device,
        precision,
        num_scales=num_scales,
        rank_confidence=rank_confidence,
        priors=priors,
        cells=cells,
    )
    if saliency is not None:
        predictor.model.set_saliency(saliency)
    embeddings = None
    if against is not None:
        check_class(predictor.class_names, against)
        if saliency is None:  # another one has other regions, and so other features
            embeddings = index_beside(run, predictor)
    answer = partial(explain_image, predictor, overwrite=overwrite, against=against, embeddings=embeddings)
    num_read = sum(map(partial(print_answer, answer), images, pictures))
    if num_read:
        logger.info("%s explained; the numbers are beside each figure, as JSON", counted(num_read, "image"))
    check_any_read(named, len(images), num_read)
    return 0


def print_answer(answer: Callable[[Path, Path], Mapping[str, Any]], image: Path, picture: Path) -> bool:
    """Explain an image by its picture and a line in the terminal; returns whether it could be read."""
    try:
        values = answer(image, picture)
    except UnreadableImageError as error:
        print(f"{image}: not read: {error.reason}")  # noqa: T201
        return False
    print(f"{image}: {answer_line(values)}; {picture}")  # noqa: T201
    return True


def index_beside(run: Path, predictor: "Predictor") -> "Embeddings | None":
    """The features of the run's training photographs; None, and a line that says so, if there is no index."""
    from ramstrans.hub import local_folder
    from ramstrans.saved.embeddings import load_index, made_by

    found = load_index(local_folder(run), made_by(predictor.model, predictor.metadata))
    if found is None:
        logger.info("no index: `ramstrans embed %s --index true` adds training photographs", run)
    return found


def answer_line(values: Mapping[str, Any]) -> str:
    """The answer of a prediction in words.

    >>> values = {"labels": ["wren"], "probabilities": [0.75], "unknown": None, "set": None}
    >>> values |= {"answer": None, "priors": None}
    >>> answer_line(values), answer_line(values | {"unknown": True, "set": ["wren", "crow"]})
    ('wren 75.0%', 'unknown (wren 75.0%; one of 2: wren, crow)')
    >>> answer_line(values | {"answer": {"name": "Wrens", "rank": "family", "probability": 0.96}})
    'wren 75.0%; family Wrens 96.0%'
    """
    probability, several = values["probabilities"][0], values["set"] or []
    answer = values["labels"][0] + ("" if probability is None else f" {probability:.1%}")
    if "present" in values:
        return "; ".join(values["present"]) or f"no label, most probable {answer}"
    answer += rank_words(values) + priors_words(values)
    if len(several) > 1:
        answer += f"; one of {len(several)}: {', '.join(several[:MAX_NAMED])}"
        answer += ", ..." if len(several) > MAX_NAMED else ""
    if "against" in values:
        other, share = values["against"]["class"], values["against"]["probabilities"][1]
        answer += f"; not {other} {share:.1%}"
    return f"unknown ({answer})" if values["unknown"] else answer


def rank_words(values: Mapping[str, Any]) -> str:
    """The answer at a rank, unless it is the class itself."""
    answer = values["answer"]
    if answer is None or answer["name"] == values["labels"][0]:
        return ""
    if answer["name"] is None:
        return "; no rank is certain"
    return f"; {answer['rank']} {answer['name']} {answer['probability']:.1%}"


def priors_words(values: Mapping[str, Any]) -> str:
    """What priors changed.

    >>> change = {"matched": "month 5", "label_before": "crow", "probability_before": 0.6, "changed": True}
    >>> priors_words({"priors": change})
    '; by priors (month 5), without them crow 60.0%'
    """
    change = values["priors"]
    if change is None:
        return ""
    if change["matched"] is None:
        return "; without priors: no condition holds"
    before = f", without them {change['label_before']} {change['probability_before']:.1%}"
    return f"; by priors ({change['matched']}){before if change['changed'] else ''}"


def choose_pictures(images: Sequence[Path], output: Path | None) -> list[Path]:
    """The figure of each image.

    Raises:
        UsageError: The output is one file, and there are several images.

    >>> [str(path) for path in choose_pictures([Path("birds/wren.jpg")], None)]
    ['wren-explained.png']
    """
    from ramstrans.inference.explain import picture_paths

    is_file = output is not None and output.suffix.lower() == ".png" and not output.is_dir()
    if output is not None and is_file:
        if len(images) > 1:
            raise UsageError(f"--output {output} is one file for {len(images)} images; give a folder")
        return [output] * len(images)
    if not images:
        return []
    default = Path() if len(images) == 1 else FOLDER
    return picture_paths(images, default if output is None else output)

"""`ramstrans export`."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from ramstrans.commands.options import Parser
from ramstrans.console import results
from ramstrans.errors import RamsTransError, UsageError
from ramstrans.files import check_new_folder
from ramstrans.plain import counted
from ramstrans.saved.metadata import load_metadata

if TYPE_CHECKING:
    from ramstrans.saved.metadata import ModelMetadata

logger = logging.getLogger(__name__)


def add_options(parser: Parser) -> None:
    """Options of `export`: the parameters of the function."""
    parser.add_argument("run", type=Path, help="Run folder, or any saved model.")
    parser.add_argument("output", type=Path, help="Folder to write: new, or empty.")
    parser.add_function_arguments(export, as_group=False, skip={"run", "output"})


def run(options: Namespace, _given: list[str]) -> int:
    """Write a model as one graph that other programs run, checked on photographs."""
    return export(**vars(options))


def export(
    run: Path,
    output: Path,
    format: Literal["onnx", "openvino", "pt2", "web"] = "onnx",  # noqa: A002 - the option's name
    verify: Path | None = None,
    num_images: PositiveInt = 64,
    num_scales: PositiveInt | None = None,
    runtime: Path | None = None,
) -> int:
    """Export a model.

    Args:
        run: Run folder, or any saved model.
        output: Folder to write: new, or empty.
        format: onnx (onnxruntime and most others), openvino, pt2 (torch.export), or web, a page that runs in
            the browser.
        verify: Folder of photographs on which the export is compared with the model; default: the test
            images of the run.
        num_images: So many of them.
        num_scales: Export the first so many of the scales that were trained; default: all.
        runtime: With --format web, folder of npm's package onnxruntime-web; default: npm gets it once.

    Raises:
        RamsTransError: It cannot be exported, or the export gives other answers; nothing is written then.
    """
    if runtime and format != "web":
        raise UsageError("--runtime has no effect without --format web; leave it out")
    metadata = load_metadata(run)
    check_new_folder(output)
    photographs = photographs_of(verify) if verify else own_photographs(metadata)
    from ramstrans.export.folder import export_folder
    from ramstrans.inference.predictor import Predictor

    predictor = Predictor.load(run, "cpu", "fp32", None, num_scales)
    check = export_folder(predictor, output, format, spread(photographs, num_images), runtime)
    line = (
        f"{output}: the same answers on {counted(check.num_images, 'photograph')}; on the same pixels "
        f"probabilities differ by at most {check.probability:.1e}, from file to answer by at most "
        f"{check.probability_from_file:.1e}, best classes equal for {100 * check.top1_from_file:.1f} %"
    )
    results().print(line, highlight=False)
    if format == "web":
        logger.info("to open the page: python -m http.server --directory %s", output)
    return 0


def photographs_of(folder: Path) -> list[Path]:
    """The photographs in a folder and below.

    Raises:
        UsageError: There is no such folder.
        DataError: It has none.
    """
    from ramstrans.inference.arguments import expand_inputs

    if not folder.is_dir():
        raise UsageError(f"--verify {folder} is not a folder; give one with photographs")
    return list(expand_inputs([folder]))


def own_photographs(metadata: "ModelMetadata") -> list[Path]:
    """The test images of the run's own data.

    Raises:
        UsageError: They are not there any more.
    """
    from ramstrans.data.build import draw_splits, read_image_set
    from ramstrans.data.config import DataConfig
    from ramstrans.evaluation.config import EvaluationData
    from ramstrans.evaluation.images import data_config

    try:
        data: DataConfig = data_config(metadata.run_options("data"), EvaluationData())
        records = draw_splits(read_image_set(data), data).of_split("test")
    except RamsTransError as error:
        raise UsageError(
            f"the run's own photographs cannot be read ({error}); give others: --verify FOLDER"
        ) from error
    return [record.path for record in records]


def spread(paths: list[Path], count: int) -> list[Path]:
    """At most `count` of the paths, evenly spread over them.

    >>> spread([Path(name) for name in "abcdef"], 3)
    [PosixPath('a'), PosixPath('c'), PosixPath('e')]
    """
    return [paths[index * len(paths) // count] for index in range(count)] if len(paths) > count else paths

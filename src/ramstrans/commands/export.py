"""`ramstrans export`."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeFloat, PositiveInt

from ramstrans.commands.options import Parser
from ramstrans.console import progress_bar, results
from ramstrans.errors import UsageError
from ramstrans.files import check_new_folder
from ramstrans.plain import counted
from ramstrans.saved.metadata import load_metadata

if TYPE_CHECKING:
    from ramstrans.export.smaller import Int8
    from ramstrans.export.verify import Check
    from ramstrans.saved.metadata import ModelMetadata

logger = logging.getLogger(__name__)

MAX_DROP = 1.0
"""Default of --max_drop."""


def add_options(parser: Parser) -> None:
    """Options of `export`: the parameters of the function."""
    parser.add_function_arguments(export, as_group=False, as_positional=True)


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
    precision: Literal["fp32", "fp16"] = "fp32",
    int8: bool = False,
    calibrate: Path | None = None,
    judge: Path | None = None,
    max_drop: NonNegativeFloat = MAX_DROP,
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
        num_scales: Export the first so many of the scales that were trained; default: all, of calcrop one.
        precision: What the backbone computes in: fp32, or fp16 for GPUs.
        int8: Quantise the backbone to 8 bits, for processors; judged by its accuracy, or not written.
        calibrate: With --int8, folder of photographs that ranges are taken from; default: training images.
        judge: With --int8, labelled photographs that it is judged on, e.g. a folder of images per class;
            default: the validation images of the run.
        max_drop: With --int8, most points of top-1 accuracy that it may lose.
        runtime: With --format web, folder of npm's package onnxruntime-web; default: npm gets it once.

    Raises:
        RamsTransError: It cannot be exported, or the export gives other answers; nothing is written then.
    """
    if not int8 and (calibrate or judge or max_drop != MAX_DROP):
        raise UsageError(
            "--calibrate, --judge and --max_drop have no effect without --int8 true; leave them out"
        )
    if runtime and format != "web":
        raise UsageError("--runtime has no effect without --format web; leave it out")
    metadata = load_metadata(run)
    check_new_folder(output)
    from ramstrans.export.folder import check_format, export_folder
    from ramstrans.export.photographs import to_verify
    from ramstrans.inference.predictor import Predictor

    check_format(format, precision, int8=int8)
    if int8 and metadata.model.multi_label:
        raise UsageError(
            "--int8 true is judged by top-1, and images of this model may have several labels (multi_label); "
            "export fp32, or --precision fp16"
        )
    photographs = to_verify(metadata, verify, num_images)
    how = int8_of(run, metadata, calibrate, judge, max_drop) if int8 else None
    predictor = Predictor.load(run, "cpu", "fp32", None, num_scales)
    with progress_bar() as progress:
        check = export_folder(
            predictor,
            output,
            format,
            photographs,
            runtime,
            precision=precision,
            int8=how,
            progress=progress,
        )
    results().print(summary(output, check), highlight=False, soft_wrap=True)
    if format == "web":
        logger.info("to open the page: python -m http.server --directory %s", output)
    return 0


def int8_of(
    run: Path, metadata: "ModelMetadata", calibrate: Path | None, judge: Path | None, max_drop: float
) -> "Int8":
    """What a graph in int8 is made and judged with.

    Raises:
        RamsTransError: There are no such photographs.
    """
    from ramstrans.export.photographs import to_calibrate, to_judge
    from ramstrans.export.smaller import CALIBRATION, Int8

    labelled = to_judge(run, metadata, judge)
    return Int8(to_calibrate(metadata, calibrate, CALIBRATION), labelled, max_drop)


def summary(output: Path, check: "Check") -> str:
    """What was written, and how well it was checked, in a line."""
    from ramstrans.export.judge import Judgement
    from ramstrans.export.smaller import in_words

    checked = f"checked on {counted(check.num_images, 'photograph')}"
    if check.rules_from_file is not None:
        checked += f", unknown and set, or labels, equal for {100 * check.rules_from_file:.1f} %"
    if check.int8 is not None:
        return f"{output}: {in_words(Judgement(**check.int8))}; {checked}"
    boxes = f", {100 * check.boxes_equal:.1f} % of boxes equal" if check.boxes_equal < 1 else ""
    return (
        f"{output}: {checked}; on the same pixels probabilities differ by at most "
        f"{check.probability:.1e}{boxes}, from file to answer by at most {check.probability_from_file:.1e}, "
        f"best classes equal for {100 * check.top1_from_file:.1f} %"
    )

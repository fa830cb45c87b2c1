import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ramstrans.evaluation.localization import region_metrics
from ramstrans.evaluation.metrics import classification_metrics, expected_calibration_error
from ramstrans.evaluation.report.build import build_report, print_report, write_report
from ramstrans.evaluation.report.markdown import markdown_page
from tests.evaluation.builders import make_predictions, names


def report_of(predictions, **extra):
    return build_report(predictions, names(predictions), extra=extra)


def printed(report, width=100):
    console = Console(file=io.StringIO(), width=width)
    print_report(report, console)
    return console.file.getvalue()


def test_holds_the_figures_of_each_scale():
    predictions = make_predictions(num_scales=3)
    report = report_of(predictions)
    fused = predictions.fused
    assert len(report["scales"]) == 3
    for entry, probabilities in zip(
        [*report["scales"], report["fused"]], [*predictions.probabilities, fused], strict=True
    ):
        metrics = classification_metrics(probabilities, predictions.labels)
        assert entry["top1"] == metrics.top1
        assert entry["top5"] == metrics.top5
        assert entry["mean_class_accuracy"] == metrics.mean_class_accuracy
        assert entry["top1_interval"] == list(metrics.top1_interval)
    assert report["fused"]["ece"] == expected_calibration_error(fused, predictions.labels)
    assert (report["num_images"], report["split"]) == (13, "test")


def test_regions_are_those_that_scale_2_sees():
    predictions = make_predictions()
    report = report_of(predictions)
    for index in range(2):
        expected = region_metrics(
            predictions.boxes[index],
            predictions.has_region[index],
            predictions.records,
            predictions.image_sizes,
        )
        assert report["regions_by_scale"][index] == expected._asdict()
    assert report["regions"] == report["regions_by_scale"][0] != report["regions_by_scale"][1]


@pytest.mark.parametrize(
    "predictions",
    [
        make_predictions(),
        make_predictions(num_scales=1, annotated=False),
        make_predictions(num_images=1, num_classes=2),
        make_predictions(num_images=3, num_classes=53, annotated=False),
    ],
    ids=["whole", "one scale", "one image", "classes without images"],
)
def test_written_report_reads_back_the_same(predictions, tmp_path):
    report = report_of(predictions, loss=float("nan"))
    write_report(tmp_path, report, markdown_page(report, {}), "<!doctype html>")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == report
    assert report["loss"] is None
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.md", "report.html"}


def test_class_without_images_has_no_accuracy():
    predictions = make_predictions(num_images=1, num_classes=3)
    report = report_of(predictions)
    empty = [entry for entry in report["classes"] if not entry["num_images"]]
    assert [entry["accuracy"] for entry in empty] == [None, None]
    assert [entry["name"] for entry in report["classes"]] == ["bird 0", "bird 1", "bird 2"]
    assert any("2 of 3 classes have no images" in line for line in report["warnings"])


def test_zoom_gain_counts_corrected_and_spoiled():
    probabilities = np.array([[[0.6, 0.4]] * 3, [[0.1, 0.9], [0.4, 0.6], [0.3, 0.7]]], dtype=np.float32)
    predictions = make_predictions(num_images=3, num_classes=2)
    predictions = predictions._replace(probabilities=probabilities, labels=np.array([1, 1, 0]))
    # Fused: 0.35/0.65, 0.5/0.5 -> class 0, 0.45/0.55; scale 1 says class 0 throughout.
    gain = report_of(predictions)["zoom_gain"]
    assert (gain["corrected"], gain["spoiled"], gain["points"]) == (1, 1, 0)
    assert gain["interval"] == pytest.approx([-78.4, 78.4], abs=0.1)  # 1.96 * sqrt(0.8 / 5)


def test_of_each_class_what_was_recognised_what_was_taken_for_it_and_by_which_it_is_confused():
    predictions = make_predictions(num_scales=1, num_images=8, num_classes=4)
    answers = [0, 0, 1, 2, 2, 1, 1, 0]
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    probabilities = np.eye(4, dtype=np.float32)[answers][None]
    rows = report_of(predictions._replace(probabilities=probabilities, labels=labels))["classes"]
    crow = rows[0]
    assert (crow["num_images"], crow["accuracy"]) == (5, 40)
    assert crow["interval"] == pytest.approx([11.8, 76.9], abs=0.1)
    assert (crow["num_predicted"], crow["precision"]) == (3, pytest.approx(200 / 3))
    assert (crow["confused_with"], crow["num_confused"]) == ("bird 2", 2)
    assert (rows[2]["accuracy"], rows[2]["interval"], rows[2]["precision"]) == (None, None, 0)
    assert rows[3]["precision"] is rows[3]["confused_with"] is None


def test_confused_pairs_go_by_name():
    predictions = make_predictions(num_scales=1, num_images=5, num_classes=3)
    predictions = predictions._replace(
        probabilities=np.eye(3, dtype=np.float32)[[1, 1, 0, 2, 2]][None], labels=np.array([0, 0, 0, 2, 1])
    )
    assert report_of(predictions)["confused"] == [
        {"true": "bird 0", "predicted": "bird 1", "count": 2, "num_images": 3},
        {"true": "bird 1", "predicted": "bird 2", "count": 1, "num_images": 1},
    ]


def test_fallbacks_are_counted_and_reported():
    predictions = make_predictions()
    predictions.has_region[0, :5] = False
    predictions.has_region[1] = False  # no scale sees the last region: no warning
    report = report_of(predictions)
    assert (report["regions"]["fallbacks"], report["regions_by_scale"][1]["fallbacks"]) == (5, 13)
    warnings = [line for line in report["warnings"] if "stood out" in line]
    assert len(warnings) == 1
    assert "5 of 13 images (38.5 %)" in warnings[0]
    assert warnings[0] in printed(report)
    assert warnings[0] in markdown_page(report, {})


def test_zooming_in_that_does_not_help_is_reported():
    predictions = make_predictions(num_images=2, num_classes=2)
    probabilities = np.array([[[0.6, 0.4]] * 2, [[0.1, 0.9]] * 2], dtype=np.float32)
    predictions = predictions._replace(probabilities=probabilities, labels=np.zeros(2, dtype=np.int64))
    assert any("did not help" in line for line in report_of(predictions)["warnings"])
    assert not any("did not help" in line for line in report_of(make_predictions(num_scales=1))["warnings"])


def test_extra_is_added_made_safe_and_its_warnings_come_first():
    @dataclass
    class Config:
        root: Path
        crop: tuple[int, int]

    predictions = make_predictions(num_images=1, num_classes=3)
    report = report_of(
        predictions, config=Config(Path("birds"), (7, 5)), loss=np.float32(0.5), warnings=["odd"]
    )
    assert report["config"] == {"root": "birds", "crop": [7, 5]}
    assert report["loss"] == 0.5
    assert report["warnings"][0] == "odd"
    assert len(report["warnings"]) > 1


def test_printed_table_fits_a_narrow_terminal_and_names_the_figures():
    report = report_of(make_predictions())
    text = printed(report, width=80)
    assert "scale 1: whole input" in text
    for entry in [*report["scales"], report["fused"]]:
        assert f"{entry['top1']:.1f}" in text
    assert f"mean IoU {report['regions']['mean_iou']:.1f} %" in text
    assert max(len(line) for line in text.splitlines() if line[:1] in "┏┃┡│└") <= 80


def test_a_printed_warning_is_not_markup():
    report = report_of(make_predictions(), warnings=["skipped [bold]x[/bold].jpg"])
    assert "skipped [bold]x[/bold].jpg" in printed(report)


def test_unknown_region_metrics_are_not_printed():
    predictions = make_predictions(annotated=False)
    text = printed(report_of(predictions))
    assert "fallbacks 0" in text
    assert "IoU" not in text


def test_page_shows_figures_pictures_config_and_command():
    report = report_of(
        make_predictions(),
        config={"data": {"name": "cub"}, "model": {"zoom_source": "full", "weights": None}, "seed": 3},
        command="ramstrans train --seed 3",
        best_epoch=11,
    )
    page = markdown_page(report, {"The curves": "my pictures/curves.png"})
    assert f"| fused: mean of all | {report['fused']['top1']:.1f} |" in page
    assert f"| mean IoU | {report['regions']['mean_iou']:.1f} % |" in page
    assert "![The curves](my%20pictures/curves.png)" in page
    assert "  model:\n    zoom_source: full\n    weights: null\n  seed: 3\n" in page
    assert "\nbest_epoch: 11\n" in page
    assert "```\nramstrans train --seed 3\n```" in page


def test_page_lists_the_worst_classes_first():
    predictions = make_predictions(num_scales=1, num_images=4, num_classes=3)
    probabilities = np.eye(3, dtype=np.float32)[[0, 1, 0, 0]][None]
    report = report_of(predictions._replace(probabilities=probabilities, labels=np.array([0, 1, 1, 2])))
    lines = markdown_page(report, {}).splitlines()
    start = lines.index("| class | accuracy | images |") + 2
    assert lines[start : start + 3] == [
        "| bird 2 | 0.0 % | 1 |",
        "| bird 1 | 50.0 % | 2 |",
        "| bird 0 | 100.0 % | 1 |",
    ]


def test_page_of_perfect_predictions_and_of_one_scale_says_so():
    predictions = make_predictions(num_scales=1, num_images=3, num_classes=3)
    probabilities = np.eye(3, dtype=np.float32)[None]
    page = markdown_page(
        report_of(predictions._replace(probabilities=probabilities, labels=np.arange(3))), {}
    )
    assert "No image was classified wrongly." in page
    assert "no region is used" in page


def test_page_takes_class_names_literally():
    predictions = make_predictions(num_classes=2)
    report = build_report(predictions, ["a|b*", "two\nlines"], extra={})
    page = markdown_page(report, {})
    assert r"| a\|b\* |" in page
    assert "| two lines |" in page


def rows_of(text):
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line[:1] == "│"]


def test_a_single_scale_has_one_row_and_few_classes_no_top_5():
    report = report_of(make_predictions(num_scales=1, num_classes=5))
    text, page = printed(report), markdown_page(report, {})
    assert [len(row) for row in rows_of(text)] == [4]
    for word in (" fused", "top-5", "corrected"):
        assert word not in text
        assert word not in page
    report = report_of(make_predictions(num_scales=2, num_classes=6))
    assert [len(row) for row in rows_of(printed(report))] == [5] * 3
    assert "top-5" in markdown_page(report, {})
    assert report["fused"]["top5"] > 0  # programs find it there in any case


def test_one_image_is_in_the_singular():
    report = report_of(make_predictions(num_images=1, num_classes=2))
    report["zoom_gain"]["corrected"] = 1
    page = markdown_page(report, {})
    assert "1 image of the test split" in printed(report)
    assert "# Report: 1 image of the test split" in page
    assert "corrected 1 image and" in page
    assert "1 true box and 1 visible part" in page
    assert "1 of 2 classes has no images" in page
    assert "1 images" not in page + printed(report)

"""Regions judged on a few birds: every method and source of regions, the summary, the pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ramstrans.data.datasets.cub import read_cub
from ramstrans.data.loading.loader import ImageDataset, build_loader
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.records import Record
from ramstrans.evaluation import faithfulness
from ramstrans.evaluation.faithfulness import Faithfulness
from ramstrans.evaluation.judge import (
    JudgedRegions,
    draw_indices,
    judge_regions,
    judged_report,
    part_of,
    picture_groups,
)
from ramstrans.evaluation.predict import predict_split
from ramstrans.evaluation.stability import Stability
from ramstrans.models.methods.build import METHODS
from tests.evaluation.builders import make_predictions
from tests.models.builders import other_model, tiny_model


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """Deletion and insertion in two steps, not ten."""
    monkeypatch.setattr(faithfulness, "NUM_STEPS", 2)


def loader_of(birds, model, batch_size=4, indices=None, *, zoom_pixels=None):
    height, width = model.image_size
    images, crop = read_cub(birds), (height * 5 // 4, width * 5 // 4)
    preprocessing = Preprocessing(2 * max(model.image_size), crop, zoom_pixels=zoom_pixels)
    dataset = ImageDataset(images.of_split("test"), preprocessing, model.image_size)
    if indices is not None:
        dataset = part_of(dataset, indices)
    return build_loader(dataset, batch_size, shuffle=False, with_high_res=model.needs_high_res)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_judged(method, birds):
    model = tiny_model(method=method, num_classes=3, zoom_source="full")
    loader = loader_of(birds, model, batch_size=3, indices=np.array([1, 2, 4, 5]))
    found = judge_regions(model, loader, np.array([1, 2, 4, 5]))
    report = judged_report(found, loader.dataset.records)
    num_regions = max(model.num_scales - 1, 1)
    assert [one["scale"] for one in report["regions"]] == list(range(1, num_regions + 1))
    assert (report["num_images"], report["num_boxes"]) == (4, 4)
    assert (report["moved"] is not None) == (model.num_scales > 1)
    assert all(len(array) for array in (*found.faithfulness, *found.stability))
    assert found.right.shape == (model.num_scales + 1, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CNN", "CNN with norms", "SigLIP"])
@pytest.mark.parametrize("num_scales", [1, 3])
def test_other_backbones_are_judged(name, num_scales, birds):
    model = other_model(name, num_scales=num_scales)
    found = judge_regions(model, loader_of(birds, model, indices=np.array([0, 3])), np.array([0, 3]))
    assert found.faithfulness.masked.shape == (max(num_scales - 1, 1), 4, 2)
    assert found.right.shape == (num_scales + 1, 2)


@pytest.mark.parametrize("zoom_source", ["full", pytest.param("native", marks=pytest.mark.slow)])
def test_batches_do_not_matter_and_scales_are_those_of_the_predictions(zoom_source, birds):
    model = tiny_model(num_scales=3, num_classes=3, zoom_source=zoom_source)
    zoom_pixels = 10**4 if zoom_source == "native" else None
    first, second = (
        judge_regions(model, loader_of(birds, model, size, zoom_pixels=zoom_pixels), np.arange(6))
        for size in (4, 5)
    )
    for one, other in zip(first.faithfulness, second.faithfulness, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    for one, other in zip(first.stability, second.stability, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert (first.right_moved == second.right_moved).all()
    predictions = predict_split(model, loader_of(birds, model, zoom_pixels=zoom_pixels))
    answers = np.concatenate([predictions.probabilities, predictions.fused[None]]).argmax(axis=-1)
    assert (first.right == (answers == predictions.labels)).all()
    assert (first.faithfulness.whole == first.right[0]).all()


def test_moved_regions_are_those_of_the_control(birds):
    model = tiny_model(num_classes=3)
    loader = loader_of(birds, model)
    found = judge_regions(model, loader, np.arange(6))
    assert model.region_placement == "found"
    with model.placed_at_random():
        predictions = predict_split(model, loader)
    assert model.region_placement == "found"
    assert (found.right_moved[-1] == (predictions.fused.argmax(axis=1) == predictions.labels)).all()
    model.region_placement = "whole"
    assert judge_regions(model, loader, np.arange(6)).right_moved is None


def judged_by_hand(beliefs=None):
    """Three images, one region."""
    masked = np.array([[[1, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 1]]], dtype=bool)
    belief = np.zeros((1, 4, 3)) if beliefs is None else np.array(beliefs)[None]
    curves = np.array([[1.0, 0.4, 0.0], [0.2, 0.8, 1.0], [1.0, 0.6, 0.0], [0.2, 0.6, 1.0]])
    curves = np.repeat(curves[:, :, None], 3, axis=2)
    true_masked = np.array([[1, np.nan, 0], [0, np.nan, 0]])
    moved_iou = np.array([[0.0, 0.5, 0.25]])
    whole = np.array([1, 1, 0]) > 0
    faithful = Faithfulness(whole, masked, belief, moved_iou, true_masked, curves, curves > 0.5)
    stable = Stability(
        np.array([[1.0, 0.5, 0.3]]), np.array([[0.9, 0.9, 0.6]]), np.array([True, True, False]), np.ones(3)
    )
    right = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 1]], dtype=bool)
    moved = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0]], dtype=bool)
    return JudgedRegions(np.array([2, 5, 7]), faithful, stable, right, moved)


def test_the_summary_by_hand():
    box = (0.0, 0.0, 2.0, 2.0)
    records = [Record(Path("a.jpg"), 0, "test", box if number != 1 else None) for number in range(3)]
    report = judged_report(judged_by_hand(), records)
    third = pytest.approx(100 / 3)
    assert report["whole"] == pytest.approx(200 / 3)
    (region,) = report["regions"]
    assert (region["alone"], region["deleted"]) == (pytest.approx(200 / 3), 0)
    assert (region["moved_alone"], region["moved_deleted"]) == (third, 100)
    assert region["moved_iou"] == 25
    assert (region["mirror_iou"], region["shift_iou"]) == (pytest.approx(60), pytest.approx(80))
    assert region["mirror_corloc"] == pytest.approx(200 / 3)
    assert report["true_box"] == {"alone": 50, "deleted": 0}
    assert report["moved"]["scales"] == [{"scale": 2, "found": 100, "moved": third}]
    assert report["moved"]["fused"] == {"found": 100, "moved": pytest.approx(200 / 3)}
    assert report["same_answer"] == {"mirror": pytest.approx(200 / 3), "shift": 100}
    areas = {name: report["curves"][name]["area"] for name in ("deletion", "insertion", "random_deletion")}
    assert areas == pytest.approx({"deletion": 45, "insertion": 70, "random_deletion": 55})
    assert report["curves"]["shares"].tolist() == [0, 50, 100]
    assert report["curves"]["deletion"]["top1"].tolist() == [100, 0, 0]
    without = [record._replace(box=None) for record in records]
    assert judged_report(judged_by_hand(), without)["true_box"] is None


def test_pictures_are_of_the_best_median_and_worst_regions():
    predictions = make_predictions(num_images=8)
    predictions.boxes[0, [2, 5, 7]] = [
        (3, 5, 17, 12),
        (3, 5, 17, 19),
        (20, 5, 27, 12),
    ]  # the box is 3 5 17 19
    groups = picture_groups(judged_by_hand(), predictions)
    assert groups == {
        "best regions: IoU with the true box 100 %": [5],
        "median regions: IoU with the true box 50 %": [2],
        "worst regions: IoU with the true box 0 %": [7],
    }
    predictions = make_predictions(num_images=8, annotated=False)
    beliefs = [[0.2, 0.9, 0.5], [0.1, 0.3, 0.9], [0] * 3, [0] * 3]  # alone - deleted: 0.1, 0.6, -0.4
    groups = picture_groups(judged_by_hand(beliefs), predictions)
    assert list(groups.values()) == [[5], [2], [7]]
    assert next(iter(groups)) == "best regions: true class, region alone - deleted 60 %"


def test_few_images_make_fewer_pictures():
    judged = judged_by_hand()._replace(indices=np.array([2]))
    predictions = make_predictions(num_images=8)
    assert list(picture_groups(judged, predictions).values()) == [[2]]
    two = judged_by_hand()._replace(indices=np.array([2, 6]))
    assert sorted(picture_groups(two, predictions).values()) == [[2], [6]]


def test_the_same_images_are_drawn_for_every_model():
    assert draw_indices(1000, 30).tolist() == draw_indices(1000, 30).tolist()
    assert len(set(draw_indices(1000, 30).tolist())) == 30
    assert draw_indices(5, 9).tolist() == [0, 1, 2, 3, 4]
    dataset = ImageDataset(
        [Record(Path(f"{i}"), 0, "test") for i in range(4)], Preprocessing(8, (8, 8)), (8, 8)
    )
    part = part_of(replace(dataset, seed=3), np.array([1, 3]))
    assert ([record.path.name for record in part.records], part.seed) == (["1", "3"], 3)

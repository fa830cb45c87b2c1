from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.records import Part, Record
from ramstrans.evaluation.localization import paired_iou, region_metrics

coordinates = st.integers(-13, 37)
boxes = st.tuples(coordinates, coordinates, coordinates, coordinates).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)


def record(box=None, parts=()):
    return Record(Path("wren.jpg"), 0, "test", box, tuple(Part("beak", *point) for point in parts))


def measure(regions, records, sizes, has_region=None):
    has_region = [True] * len(regions) if has_region is None else has_region
    regions = np.array(regions, dtype=np.float32)
    return region_metrics(regions, np.array(has_region), records, np.array(sizes))


def count_pixels(first, second):
    """IoU of integer boxes by painting them."""
    painted = np.zeros((2, 60, 60), dtype=bool)
    for canvas, (x0, y0, x1, y1) in zip(painted, (first, second), strict=True):
        canvas[y0 + 15 : y1 + 15, x0 + 15 : x1 + 15] = True
    union = (painted[0] | painted[1]).sum()
    return (painted[0] & painted[1]).sum() / union if union else 0.0


@given(boxes, boxes)
def test_iou_agrees_with_painted_pixels(first, second):
    forth = paired_iou(np.array([first], dtype=float), np.array([second], dtype=float))
    back = paired_iou(np.array([second], dtype=float), np.array([first], dtype=float))
    assert forth == back == pytest.approx(count_pixels(first, second))
    assert 0 <= forth[0] <= 1


def test_by_hand():
    records = [record((0, 0, 10, 10), [(2, 3), (9, 9)]), record((10, 0, 20, 10), [(11, 1)]), record()]
    found = measure(
        [(0, 0, 10, 5), (0, 0, 10, 10), (0, 0, 20, 10)],
        records,
        [(20, 10), (20, 10), (40, 20)],
        has_region=[True, True, False],
    )
    assert (found.fallbacks, found.num_boxes, found.num_parts) == (1, 2, 3)
    assert found.fallback_share == pytest.approx(100 / 3)
    assert found.mean_area == pytest.approx((25 + 50 + 25) / 3)
    assert found.mean_iou == pytest.approx((50 + 0) / 2)
    assert found.corloc == 50
    assert found.parts_inside == pytest.approx(100 / 3)


def test_true_box_is_clipped_to_its_image():
    found = measure([(10, 0, 20, 10)], [record((10, -5, 30, 15))], [(20, 10)])
    assert found.mean_iou == 100


def test_width_comes_before_height():
    found = measure([(0, 0, 30, 10)], [record((0, 0, 30, 10))], [(30, 10)])
    assert (found.mean_area, found.mean_iou) == (100, 100)


@pytest.mark.parametrize(
    ("point", "inside"), [((3, 5), 100), ((7, 7), 0), ((3, 11), 0), ((6.9, 10.9), 100), ((2.9, 7), 0)]
)
def test_region_is_half_open_for_parts(point, inside):
    found = measure([(3, 5, 7, 11)], [record(parts=[point])], [(17, 13)])
    assert found.parts_inside == inside


def test_without_boxes_and_parts_nothing_is_claimed():
    found = measure([(0, 0, 5, 5)] * 2, [record(), record()], [(7, 7)] * 2)
    assert found.mean_iou is found.corloc is found.parts_inside is None
    assert (found.num_boxes, found.num_parts, found.fallbacks) == (0, 0, 0)


def test_box_without_area_overlaps_nothing():
    found = measure([(0, 0, 5, 5)], [record((3, 3, 3, 3))], [(7, 7)])
    assert (found.mean_iou, found.corloc, found.num_boxes) == (0, 0, 1)


@given(st.lists(st.tuples(boxes, boxes, st.tuples(coordinates, coordinates)), min_size=1, max_size=7))
def test_percentages_stay_percentages(cases):
    regions, true_boxes, points = zip(*cases, strict=True)
    records = [record(box, [point]) for box, point in zip(true_boxes, points, strict=True)]
    found = measure(regions, records, [(23, 19)] * len(cases))
    for value in (found.mean_area, found.mean_iou, found.corloc, found.parts_inside):
        assert 0 <= value <= 100

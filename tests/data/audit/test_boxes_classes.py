import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.data.audit.boxes_classes import box_issue


@pytest.mark.parametrize(
    ("box", "issue"),
    [
        ((0, 0, 11, 13), None),
        ((-1, -1, 12, 14), None),
        ((-1.1, 0, 5, 5), "box past the edge"),
        ((0, -1.1, 5, 5), "box past the edge"),
        ((0, 0, 12.1, 5), "box past the edge"),
        ((0, 0, 5, 14.1), "box past the edge"),
        ((11, 0, 12, 5), "box outside"),
        ((-3, 2, 0, 5), "box outside"),
        ((2, 13, 3, 99), "box outside"),
        ((2, -9, 3, -1), "box outside"),
        ((3, 3, 3, 5), "empty box"),
        ((5, 3, 3, 5), "empty box"),
        ((3, 5, 5, 3), "empty box"),
        ((3, 3, float("nan"), 5), "empty box"),
    ],
)
def test_box_issues(box, issue):
    assert box_issue(box, 11, 13) == issue


@given(st.tuples(*[st.integers(-30, 30)] * 4), st.integers(1, 20), st.integers(1, 20))
def test_box_issues_agree_with_counting_pixels(box, width, height):
    x0, y0, x1, y1 = box
    cells = {(x, y) for x in range(x0, x1) for y in range(y0, y1)}
    inside = {(x, y) for x, y in cells if 0 <= x < width and 0 <= y < height}
    near = {(x, y) for x, y in cells if -1 <= x <= width and -1 <= y <= height}
    expected = (
        "empty box"
        if not cells
        else "box outside"
        if not inside
        else "box past the edge"
        if near != cells
        else None
    )
    assert box_issue(box, width, height) == expected

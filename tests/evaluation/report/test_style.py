import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ramstrans.evaluation.report.style import draw_box


def test_an_outline_is_dashed_over_a_rim_of_another_color():
    axes = Figure().subplots()
    draw_box(axes, (2, 3, 7, 14), "#FFFFFF", rim="black", dashed=True)
    rim, line = axes.patches
    assert rim.get_bbox().extents.tolist() == line.get_bbox().extents.tolist() == [2, 3, 7, 14]
    assert (to_hex(rim.get_edgecolor()), rim.get_linestyle()) == ("#000000", "-")
    assert (to_hex(line.get_edgecolor()), line.get_linestyle()) == ("#ffffff", "--")
    with pytest.raises(AssertionError, match="dashes could not be seen"):
        draw_box(axes, (2, 3, 7, 14), "white", dashed=True)

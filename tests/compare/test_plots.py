"""What the plots of a comparison show where there are many methods."""

import pytest

from ramstrans.compare import plots


@pytest.mark.parametrize("count", [2, 40])
def test_all_entries_of_a_legend_are_seen(count):
    figure = plots._figure_with_legend(1, count)
    axes = figure.subplots()
    for number in range(count):
        axes.plot([0], [number], label=f"method {number}")
    axes.legend()
    plots._add_legend(figure)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert len(legend.get_texts()) == count
    assert box.y0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1


def test_curves_differ_in_colour_or_line(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, _path: drawn.append(figure))
    curve = {"step": [10, 20], "mean": [3.0, 2.0], "low": [2.9, 1.9], "high": [3.1, 2.1]}
    nothing = {"epoch": [], "mean": [], "low": [], "high": []}
    entries = [
        {
            "contender": f"m{number}",
            "of": None,
            "curves": {"training_loss": curve, "validation_top1": nothing},
        }
        for number in range(24)
    ]
    plots.plot_curves(entries, tmp_path / "curves.png")
    lines = drawn[0].axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines) == 24

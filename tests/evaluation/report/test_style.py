import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ramstrans.evaluation.report.style import draw_box, draw_saliency, label_text, save_figure
from ramstrans.evaluation.views import ScaleViews
from tests.evaluation.builders import pixels


def test_color_rim_and_dashes_of_a_box_are_drawn(tmp_path):
    drawn = []
    for options in ({}, {"color": "blue"}, {"rim": "black"}, {"dashed": True}):
        figure = Figure(figsize=(1, 1))
        draw_box(figure.add_axes((0, 0, 1, 1)), (0.2, 0.3, 0.7, 0.9), **{"color": "red"} | options)
        save_figure(figure, tmp_path / "box.png")
        drawn.append(pixels(tmp_path / "box.png").tobytes())
    assert len(set(drawn)) == 4


def test_label_text_is_short_and_drawable():
    assert label_text("b\x07\udce9 wr\u200den") == r"b\x07\udce9 wren"
    assert label_text("w" * 50 + "x" * 49) == "w" * 15 + "…" + "x" * 14
    assert label_text("مرغ") == "\u200eمرغ\u200e"


def test_letters_that_the_font_lacks_raise_no_warning(tmp_path):
    figure = Figure(figsize=(2, 1), layout="constrained")
    figure.subplots().set_title(label_text("鳥 \U0001f985 $x^$"))
    save_figure(figure, tmp_path / "new" / "label.png")
    assert pixels(tmp_path / "new" / "label.png").shape == (110, 220, 3)


@pytest.mark.parametrize("saliency", [np.full((2, 3), np.nan), np.ones((2, 3))])
def test_saliency_is_drawn_only_if_it_is_finite(saliency):
    axes = Figure().subplots()
    image, box = Image.new("RGB", (7, 5)), (2, 3, 9, 8)
    draw_saliency(axes, ScaleViews(image, (7, 5), (image,) * 2, (box,) * 2, (saliency,) * 2), 1)
    assert len(axes.images) == 1 + int(np.isfinite(saliency).all())
    assert {tuple(image.get_extent()) for image in axes.images} == {(2, 9, 8, 3)}

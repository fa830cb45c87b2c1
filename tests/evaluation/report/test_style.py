import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ramstrans.evaluation.report import style
from ramstrans.evaluation.report.style import draw_box, draw_saliency, label_text, save_figure
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
    assert label_text("b\x07\udce9 wren") == r"b\x07\udce9 wren"
    assert label_text("a\u200cb") == "ab"  # a joiner of Persian words
    assert label_text("w" * 50 + "x" * 49) == "w" * 15 + "…" + "x" * 14


@pytest.fixture
def other_font(monkeypatch):
    """As if a Chinese font was installed."""
    style._font_of.cache_clear()
    monkeypatch.setattr(style, "_other_fonts", lambda: {"STIXGeneral": frozenset(map(ord, "鳥鳩"))})
    yield "STIXGeneral"
    style._font_of.cache_clear()


def test_letters_of_other_scripts_are_drawn_in_an_installed_font_or_escaped(other_font, tmp_path):
    assert label_text("鳥 wren 鶴") == r"鳥 wren \u9db4"
    figure = Figure(figsize=(2, 1))
    text, plain = figure.text(0, 0, label_text("鳥")), figure.text(0, 0.5, "wren")
    save_figure(figure, tmp_path / "label.png")
    assert text.get_fontfamily() == ["DejaVu Sans", other_font]
    assert plain.get_fontfamily() == ["sans-serif"]


def test_letters_that_the_font_lacks_raise_no_warning(tmp_path):
    figure = Figure(figsize=(2, 1), layout="constrained")
    figure.subplots().set_title(label_text("鳥 \U0001f985 $x^$"))
    save_figure(figure, tmp_path / "new" / "label.png")
    assert pixels(tmp_path / "new" / "label.png").shape == (110, 220, 3)


@pytest.mark.parametrize("saliency", [np.full((2, 3), np.nan), np.ones((2, 3))])
def test_saliency_is_drawn_only_if_it_is_finite(saliency):
    axes = Figure().subplots()
    draw_saliency(axes, saliency, Image.new("RGB", (7, 5)), (2, 3, 9, 8))
    assert len(axes.images) == 1 + int(np.isfinite(saliency).all())
    assert all(
        image.get_extent() == (2, 9, 8, 3) or image.get_extent() == [2, 9, 8, 3] for image in axes.images
    )

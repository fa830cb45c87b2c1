import warnings

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure

from ramstrans.evaluation.report import fonts
from ramstrans.evaluation.report.style import label_text, save_figure
from tests.evaluation.builders import pixels


def make_font(path, family, letters):
    """A font whose letters are all black squares."""
    names = [".notdef", *(f"letter{index}" for index in range(len(letters)))]
    pen = TTGlyphPen(None)
    for index, corner in enumerate([(0, 0), (0, 800), (800, 800), (800, 0)]):
        (pen.lineTo if index else pen.moveTo)(corner)
    pen.closePath()
    glyph = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:], strict=True)})
    builder.setupGlyf(dict.fromkeys(names, glyph))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Make these the machine's only fonts beside matplotlib's."""
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    monkeypatch.setattr(fonts, "_reported", set())

    def install(**letters_of):
        made = [make_font(tmp_path / f"{name}.ttf", name, letters) for name, letters in letters_of.items()]
        (tmp_path / "damaged.ttf").write_bytes(b"no font")
        monkeypatch.setattr(fonts, "installed_fonts", lambda: [*made, str(tmp_path / "damaged.ttf")])
        fonts.fallback_families.cache_clear()

    yield install
    fonts.fallback_families.cache_clear()


def black(path):
    return int((pixels(path) < 60).all(axis=-1).sum())


def draw(path, title):
    figure = Figure(figsize=(2, 1))
    figure.text(0.1, 0.5, label_text(title), fontsize=20)
    save_figure(figure, path)
    return figure


def test_as_few_fonts_as_possible(installed):
    installed(One="鳥", Both="鳥วก", Other="ว")
    assert fonts.fallback_families(frozenset("鳥ว")) == (("Both",), frozenset())
    assert fonts.fallback_families(frozenset("鳥จ")) == (("Both",), frozenset("จ"))
    assert fonts.fallback_families(frozenset("จ")) == ((), frozenset("จ"))


def test_an_installed_font_draws_what_the_own_one_lacks(tmp_path, installed, caplog):
    installed()
    draw(tmp_path / "boxes.png", "鳥鳥鳥")
    installed(Squares="鳥")
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw(tmp_path / "letters.png", "a 鳥鳥鳥")
    assert figure.texts[0].get_fontfamily()[-1] == "Squares"
    assert [text.get_text() for text in figure.texts] == ["a 鳥鳥鳥"]
    side = 20 / 72 * 110 * 0.8  # of a square, in pixels at 110 dpi
    assert black(tmp_path / "letters.png") > 2.5 * side**2
    assert caplog.messages == []


def test_tick_labels_too(installed, tmp_path):
    installed(Squares="鳥")
    figure = Figure(figsize=(2, 1))
    axes = figure.subplots()
    axes.set_yticks([0, 1], labels=["鳥", "wren"])
    save_figure(figure, tmp_path / "a.png")
    families = [label.get_fontfamily()[-1] for label in axes.get_yticklabels()]
    assert families[0] == "Squares"
    assert families[1] != "Squares"


def test_letters_without_a_font_are_noted_and_reported_once(installed, tmp_path, caplog):
    installed()
    for _ in range(2):
        figure = draw(tmp_path / "a.png", "鳥 wren")
        assert figure.texts[-1].get_text() == fonts.NOTE
    assert caplog.messages == [
        "pictures show boxes for letters that no font on this machine has, 1 of Cjk, such as 鳥; install "
        "one, e.g. Noto Sans, or read the names in the text"
    ]


def test_a_figure_that_needs_no_other_font_asks_for_none(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "installed_fonts", lambda: pytest.fail("asked"))
    assert len(draw(tmp_path / "a.png", "Höckerschwan … wren").texts) == 1

"""Fonts for letters that matplotlib's own font lacks: those that are installed on the machine."""

import functools
import logging
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

logger = logging.getLogger(__name__)

NOTE = "Boxes stand for letters that no font on this machine has; report.md has all names."

_reported: set[str] = set()


def use_installed_fonts(figure: Figure) -> None:
    """Let the texts of a figure fall back to installed fonts; a note says where no font has the letters."""
    for axes in figure.axes:
        axes.get_xticklabels(), axes.get_yticklabels()  # fills them in, which only drawing would do
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
    missing = frozenset(letter for text in texts for letter in _missing(text))
    if not missing:
        return
    families, without = fallback_families(missing)
    for text in texts:
        if _missing(text):
            text.set_fontfamily([*text.get_fontfamily(), *families])
    if without:
        figure.text(0.004, 0.004, NOTE, fontsize=6, color="#555555", va="bottom")
        _report(without)


@functools.lru_cache(maxsize=64)
def fallback_families(letters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Choose installed fonts that have some letters: as few as possible, upright sans serif ones first.

    Returns:
        The families, and the letters that none of them has.
    """
    fonts = {path: _having(path, letters) for path in sorted(installed_fonts(), key=_preference)}
    families, rest = [], letters
    while rest and (best := max(fonts, key=lambda path: len(fonts[path] & rest), default=None)) is not None:
        if not fonts[best] & rest:
            break
        font_manager.fontManager.addfont(best)
        families.append(FT2Font(best).family_name)
        rest -= fonts[best]
    return tuple(families), rest


def installed_fonts() -> list[str]:
    """List the files of the fonts of this machine and user."""
    return font_manager.findSystemFonts()


def _missing(text: Text) -> set[str]:
    font = font_manager.get_font(font_manager.findfont(text.get_fontproperties()))
    return {letter for letter in text.get_text() if not font.get_char_index(ord(letter))} - {"\n"}


def _having(path: str, letters: Iterable[str]) -> frozenset[str]:
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):  # not a font that can be drawn
        return frozenset()
    return frozenset(letter for letter in letters if font.scalable and font.get_char_index(ord(letter)))


def _preference(path: str) -> tuple[bool, bool, str]:
    name = Path(path).name.lower()
    return "regular" not in name, "sans" not in name, name


def _report(letters: frozenset[str]) -> None:
    """Log once which letters are drawn as boxes."""
    new = letters - _reported
    _reported.update(new)
    if new:
        scripts = sorted({unicodedata.name(letter, "unknown").split()[0].title() for letter in new})
        logger.warning(
            "pictures show boxes for letters that no font on this machine has, %d of %s, such as %s; install "
            "one, e.g. Noto Sans, or read the names in the text",
            *(len(new), ", ".join(scripts), min(new)),
        )

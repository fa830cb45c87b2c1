"""The page in a real browser: nothing is requested, tables sort, lists are filtered, phones do not scroll."""

import re

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.builders import FakeSource, make_predictions, page_of
from tests.evaluation.report.test_page import large

pytestmark = pytest.mark.slow  # a browser


@pytest.fixture
def show(chromium, tmp_path):
    """Opens a page from disk; no test may see a request to anywhere, or a complaint."""
    contexts, requests, problems = [], [], []

    def show(text, **options):
        path = tmp_path / "report.html"
        path.write_text(text, encoding="utf-8")
        contexts.append(chromium.new_context(**options))
        page = contexts[-1].new_page()
        page.on("request", lambda sent: requests.append(sent.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: said.type in ("error", "warning") and problems.append(said.text))
        page.goto(path.as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert [url[:80] for url in requests if not url.startswith(("data:image/webp", "file:///"))] == []
    assert len([url for url in requests if url.startswith("file:")]) == len(contexts)
    assert problems == []


@pytest.fixture(scope="module")
def text():
    """Classes of 6, 11, 2, ... images, one of which is never predicted, so that its precision is unknown."""
    labels = np.repeat(np.arange(5), [6, 11, 2, 9, 12])
    answers = np.where(np.arange(40) % 3 == 0, (labels + 1) % 4, labels)
    answers[answers == 4] = 0
    predictions = make_predictions(num_scales=1, num_images=40, num_classes=5)
    probabilities = 0.5 * np.eye(5, dtype=np.float32)[answers] + 0.1
    predictions = predictions._replace(probabilities=probabilities[None], labels=labels)
    return page_of(predictions, ["Crow 2", "Wren", "Crow 10", "Tit", "Élan"], regions_used=1)


def column(page, number):
    """The texts of a column's visible cells, read at once: a locator asks for each of a thousand."""
    return page.evaluate(
        "(cells) => [...document.querySelectorAll(cells)].filter((cell) => cell.offsetParent)"
        ".map((cell) => cell.innerText)",
        f"#class-table tbody tr > :nth-child({number})",
    )


def test_a_click_sorts_up_another_one_down_and_what_is_unknown_stays_last(show, text):
    page = show(text)
    recall = [float(value) for value in column(page, 4)]
    assert recall == sorted(recall)
    images = page.get_by_role("columnheader", name="images")
    images.get_by_role("button").click()
    assert column(page, 3) == ["2", "6", "9", "11", "12"]
    assert images.get_attribute("aria-sort") == "ascending"
    images.get_by_role("button").press("Enter")
    assert column(page, 3) == ["12", "11", "9", "6", "2"]
    assert images.get_attribute("aria-sort") == "descending"
    assert page.locator("[aria-sort]").count() == 1
    page.get_by_role("button", name="class").click()
    assert column(page, 1) == ["Crow 2", "Crow 10", "Élan", "Tit", "Wren"]
    for _ in range(2):
        page.get_by_role("button", name="precision").click()
        assert column(page, 6)[-1] == ""
        assert column(page, 1)[-1] == "Élan"


def test_filters_hide_what_does_not_match(show, text):
    page = show(text)
    field = page.get_by_label("Filter classes")
    field.fill("éLAN")
    assert column(page, 1) == ["Élan"]
    assert page.locator("output").first.inner_text() == "1 of 5"
    field.fill("10 crow")
    assert "Crow 10" in column(page, 1)
    field.fill("")
    assert len(column(page, 1)) == 5
    assert page.locator("output").first.inner_text() == ""
    cards = page.locator("#mistakes .card:visible")
    before = cards.count()
    page.get_by_label("by class or file").fill("wren")
    assert 0 < cards.count() < before
    assert all("Wren" in card for card in cards.all_inner_texts())


def test_without_scripts_the_page_is_whole_and_has_no_dead_controls(show, text):
    page = show(text, java_script_enabled=False)
    assert len(column(page, 1)) == 5
    assert page.locator("input:visible, button:visible").count() == 0


@pytest.mark.parametrize("width", [320, 400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_as_wide_as_the_window_and_its_texts_have_contrast(show, text, width, scheme):
    page = show(text, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("p", ".small", "span.wrong", "figcaption", ".file", "dt", ".note li", "th", "a"):
        assert contrast(page, selector) >= 4.5, selector


def contrast(page, selector):
    """Contrast of a text with what lies behind it: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""
    colors = page.evaluate(
        """(selector) => {
            const one = document.querySelector(selector);
            let behind = one;
            const clear = "rgba(0, 0, 0, 0)";
            while (getComputedStyle(behind).backgroundColor === clear) behind = behind.parentElement;
            return [getComputedStyle(one).color, getComputedStyle(behind).backgroundColor];
        }""",
        selector,
    )
    values = [np.array(re.findall(r"[\d.]+", color)[:3], dtype=float) / 255 for color in colors]
    linear = [np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) for rgb in values]
    dark, light = sorted(float(rgb @ [0.2126, 0.7152, 0.0722]) for rgb in linear)
    return (light + 0.05) / (dark + 0.05)


def test_options_are_open_in_print(show, text):
    page = show(text)
    assert page.locator("details[open]").count() == 0
    assert len(page.pdf()) > 10_000
    assert page.locator("details[open]").count() == 1


class Plain(FakeSource):
    """Photographs that compress at once."""

    def photograph(self, index, side):
        return Image.new("RGB", (40, 30))


def test_a_thousand_classes_are_sorted_and_filtered(show):
    page = show(page_of(large(2000, 1000), [f"bird {label}" for label in range(1000)], source=Plain()))
    page.get_by_role("button", name="class").click()
    assert column(page, 1)[:3] == ["bird 0", "bird 1", "bird 2"]
    page.get_by_label("Filter classes").fill("bird 999")
    assert "bird 999" in column(page, 1)
    assert len(column(page, 1)) < 20

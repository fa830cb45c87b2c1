import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ramstrans.data.records import Record
from ramstrans.evaluation.report.blocks import Code, Heading, Items, Picture, Table, Text, markdown_of
from ramstrans.evaluation.report.html import html_of
from tests.evaluation.builders import assert_says, make_predictions, noise, page_of

EMPTY = {"meta", "img", "input", "br", "wbr", "rect", "path", "image"}


class Tree(HTMLParser):
    """Checks that tags are closed in order, and gathers attributes and ids."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.tags = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page():
    return page_of(make_predictions(num_images=60), command="ramstrans train birds", config={"seed": 3})


def test_the_page_is_well_formed_and_asks_for_nothing(page):
    tree = Tree(page)
    for tag, name, value in tree.attributes:
        if name in ("src", "href", "srcset", "data", "action", "poster"):
            assert value.startswith(("data:image/webp;base64,", "#")), (tag, name, value[:60])
    assert not re.search(r"https?:|//cdn|@import|url\(", page)
    assert not {"link", "iframe", "object", "base", "form"} & set(tree.tags)
    ids = [value for _, name, value in tree.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for _, name, value in tree.attributes if name == "href" and value.startswith("#")}
    assert targets <= set(ids)


def test_the_policy_allows_its_own_style_and_script_only(page):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src &#39;none&#39;; img-src data:;")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy.replace("&#43;", "+").replace("&#34;", '"')
    assert not re.search(r'<[^>]+ (style|on\w+)="', page)


def test_every_picture_and_field_has_a_name(page):
    tree = Tree(page)
    for tag in re.findall(r"<img [^>]*>", page):
        assert re.search(r'alt="[^"]+"', tag), tag[-200:]
    assert page.count('role="img"') == page.count('<svg viewBox="0 0 31 23"') > 0
    assert tree.tags.count("input") == page.count("<label>")
    assert all('scope="' in tag for tag in re.findall(r"<th[ >][^>]*>?", page))


def test_the_figures_by_hand():
    """Of three crows two are recognised; one goes for a wren, with 80 and 90 %, by both scales 85 %."""
    crow, wren = [0.9, 0.1], [0.2, 0.8]
    probabilities = np.array([[crow, crow, wren, wren], [crow, crow, [0.1, 0.9], wren]], dtype=np.float32)
    predictions = make_predictions(num_images=4, num_classes=2)
    records = tuple(
        record._replace(path=Path(f"set/{i}.jpg")) for i, record in enumerate(predictions.records)
    )
    predictions = predictions._replace(
        probabilities=probabilities, labels=np.array([0, 0, 0, 1]), records=records
    )
    page = " ".join(page_of(predictions, ["crow", "wren"]).replace("<wbr>", "").split())
    assert "The answer was right for 3 of them: 75.0 %." in page
    row = page[page.index('<th scope="row" id="class-0">crow</th>') :].partition("</tr>")[0]
    assert re.findall(r'<td class="number">([^<]*)</td>', row) == ["3", "66.7", "100.0"]
    assert "</svg> <span>21 - 94</span></td>" in row
    assert "<td>wren (1)</td>" in row
    card = page[page.index('<li class="card">') :].partition("</li>")[0]
    assert '<span class="wrong">✗ wren</span> 85&nbsp;%' in card
    assert "true class: crow 15.0&nbsp;% (rank 2)" in card
    assert 'scale 1: <span class="wrong">✗ wren</span> 80&nbsp;%' in card
    assert '<p class="file">set/2.jpg</p>' in card
    assert 'class="region" x="' in card
    assert 'class="truth" x="3" y="5" width="14" height="14"/>' in card
    assert card.count("<img ") == 3  # beside the photograph


def test_names_are_texts_and_not_html():
    name = '<script>alert("x")</script> & <b>crow</b>'
    predictions = make_predictions(num_images=30, num_classes=3)
    records = tuple(
        Record(record.path.parent / f"<i>{i}</i>" / '"><img src=x onerror=1>.jpg', *record[1:])
        for i, record in enumerate(predictions.records)
    )
    names = [name, "wren'\">", "b\udce9d {{ 7 * 7 }}"]
    page = page_of(
        predictions._replace(records=records), names, command="a && b <c>", warnings=["<u>odd</u>"]
    )
    Tree(page)
    assert page.count("<script>") == 1
    page = page.replace("<wbr>", "")
    assert not re.search(r"<b>|<i>|<u>|onerror=1>\.jpg", page)
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; &amp; &lt;b&gt;crow&lt;/b&gt;" in page
    assert "b\\udce9d {{ 7 * 7 }}" in page
    assert "a &amp;&amp; b &lt;c&gt;" in page
    assert "&lt;u&gt;odd&lt;/u&gt;." in page


def test_what_does_not_exist_has_no_section():
    predictions = make_predictions(num_scales=1, num_images=3, num_classes=3, annotated=False)
    eye = np.eye(3, dtype=np.float32)
    page = page_of(predictions._replace(probabilities=eye[None], labels=np.arange(3)), regions_used=0)
    ids = re.findall(r'<section id="(\w+)"', page)
    assert ids == ["summary", "classes", "made"]
    assert "No image was classified wrongly." in page
    assert "reliability" not in page.lower()


SAME = dict.fromkeys(("ece", "adaptive_ece", "nll", "brier"), 9.0)
CALIBRATION = {
    "fitted_on": "val",
    "num_images": 100,
    "scales": [{"temperature": 0.81, "before": SAME, "after": SAME}] * 2,
    "fused": {
        "temperature": 0.52,
        "before": {"ece": 11.19, "adaptive_ece": 11.2, "nll": 0.4321, "brier": 0.2},
        "after": {"ece": 2.04, "adaptive_ece": 2.2, "nll": 0.3456, "brier": 0.1},
    },
}
UNKNOWN = {
    "score": "energy",
    "threshold": -3.25,
    "rejected": 4.62,
    "asked": 5.0,
    "images": [{"name": "moths", "num_images": 70, "rejected": 81.0, "auroc": 95.5, "fpr95": 20.1}],
}
SETS = {
    "method": "lac",
    "coverage": 95.0,
    "per_class": False,
    "methods": {
        "lac": {"reached": 94.4, "mean_size": 1.234, "largest": 4, "singletons": 80.2, "worst_class": 70.0}
    },
}


def test_a_calibrated_model_shows_what_it_is_worth(tmp_path):
    noise(0, (60, 40)).save(tmp_path / "reliability.png")
    page = page_of(
        make_predictions(),
        calibration=CALIBRATION,
        unknown=UNKNOWN,
        sets=SETS,
        figures={"reliability": tmp_path / "reliability.png"},
    )
    Tree(page)
    assert_says(
        page,
        '<section id="trust">',
        "11.2 → 2.0",
        "0.432 → 0.346",
        "energy score is above -3.25",
        "4.6 % are; 5 % were asked for.",
        '<td class="number">95.5 %</td>',
        "do so for 94.4 %. They have 1.23 classes on average, at most 4; 80.2 % name just one.",
        "After calibration it is off by 2.0 points",
    )
    assert page.count('class="plot"') == 1


def large(num_images, num_classes, num_scales=2):
    """Predictions of many images: one class with 0.6, another with 0.4."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, num_images - num_classes)])
    probabilities = np.zeros((num_scales, num_images, num_classes), dtype=np.float32)
    for scale in probabilities:
        right = rng.random(num_images) < 0.6
        other = (labels + rng.integers(1, 4, num_images)) % num_classes
        scale[np.arange(num_images), labels] = np.where(right, 0.6, 0.4)
        scale[np.arange(num_images), other] = np.where(right, 0.4, 0.6)
    boxes = np.tile(np.array([3, 5, 12, 17], dtype=np.float32), (1, num_images, 1))
    template = make_predictions(num_images=1)
    record = template.records[0]
    records = tuple(
        record._replace(path=Path(f"class_{label}/image_{index}.jpg"), label=int(label))
        for index, label in enumerate(labels)
    )
    return template._replace(
        probabilities=probabilities,
        labels=labels,
        boxes=boxes,
        has_region=np.ones((1, num_images), dtype=bool),
        image_sizes=np.tile([31, 23], (num_images, 1)),
        records=records,
    )


def assert_small_and_whole(page, num_classes):
    assert 1_000_000 < len(page.encode()) < 3_000_000
    Tree(page)
    assert page.count('<th scope="row" id="class-') == num_classes


@pytest.mark.slow
def test_a_thousand_classes_stay_below_three_megabytes():
    """However many images: it shows the same number of them."""
    page = page_of(large(7000, 1000), [f"{label}. A bird of a long name" for label in range(1000)])
    assert_small_and_whole(page, 1000)
    assert re.search(r"16 of \d{3} are shown", page)


def test_of_very_many_classes_the_least_accurate_are_listed_and_the_page_says_so(monkeypatch):
    monkeypatch.setattr("ramstrans.evaluation.report.page.MAX_CLASSES", 5)
    predictions = make_predictions(num_images=40, num_classes=11)
    page = page_of(predictions._replace(labels=np.arange(40) % 9))
    assert page.count('<th scope="row" id="class-') == 5
    text = " ".join(page.split())
    assert (
        "Left out: 2 of 11 classes, which have no images here; 4 classes more accurate than these 5;" in text
    )


@pytest.mark.slow
def test_too_little_room_for_photographs_is_said(monkeypatch):
    monkeypatch.setattr("ramstrans.evaluation.report.page.MAX_BYTES", 120_000)
    page = page_of(make_predictions(num_images=60, num_classes=53))
    assert "photographs of" in page
    assert "classes, which would make this page too large" in page
    assert len(page.encode()) < 120_000


def test_blocks_as_markdown_and_as_html(tmp_path):
    noise(0, (9, 7)).save(tmp_path / "a.png")
    blocks = [
        Heading(1, "A < B"),
        Text("*odd*", is_note=True),
        Items(["one", "two"]),
        Table(["", "top-1"], [["crow", "5"], ["wren", "7"]], bold=frozenset({1})),
        Picture(tmp_path / "a.png", "noise"),
        Code("x < y\n"),
    ]
    page, text = html_of(blocks), markdown_of(blocks, tmp_path)
    Tree(page)
    assert_says(
        page,
        "<title>A &lt; B</title>",
        '<p class="note">*odd*</p>',
        "<li>two</li>",
        '<tr class="best">\n<th scope="row">wren</th>',
        '<td class="number">7</td>',
        "x &lt; y</pre>",
    )
    assert text.startswith("# A \\< B\n\n> **Note:** \\*odd\\*\n\n- one\n- two\n\n|  | top-1 |\n")
    assert text.endswith("![noise](a.png)\n\n*noise*\n\n```\nx < y\n```\n")

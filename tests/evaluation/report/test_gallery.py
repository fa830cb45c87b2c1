import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from ramstrans.data.records import Record
from ramstrans.evaluation.report import style
from ramstrans.evaluation.report.gallery import choose_groups, plot_gallery
from ramstrans.evaluation.report.style import RIGHT_COLOR, WRONG_COLOR
from ramstrans.evaluation.views import ScaleViews
from tests.evaluation.builders import make_predictions, names, pixels

GREY = Image.fromarray(np.full((23, 31, 3), 90, dtype=np.uint8))
VIEWS = ScaleViews(
    GREY,
    (31, 23),
    (GREY.crop((11, 3, 29, 21)), GREY.resize((17, 17))),
    ((11.0, 3.0, 29.0, 21.0), (13.0, 5.0, 20.0, 12.0)),
    (np.arange(35.0).reshape(5, 7),),
)


def draw(path, views=VIEWS, *, predictions=None, index=0, class_names=None, heading="all"):
    predictions = predictions or make_predictions()
    plot_gallery([views], predictions, {heading: [index]}, class_names or names(predictions), path)
    return pixels(path)


def count_color(drawn, color):
    return int((drawn == tuple(bytes.fromhex(color[1:]))).all(axis=-1).sum())


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("gallery") / "before.png")


PREDICTIONS = make_predictions()


@pytest.mark.parametrize(
    "changes",
    [
        {"views": VIEWS._replace(image=Image.new("RGB", (31, 23), "red"))},
        {"views": VIEWS._replace(size=(62, 46))},
        {"views": VIEWS._replace(saliencies=(np.arange(35.0)[::-1].reshape(5, 7),))},
        {"views": VIEWS._replace(crops=(Image.new("RGB", (18, 18), "red"), VIEWS.crops[1]))},
        {"views": VIEWS._replace(crops=(VIEWS.crops[0], Image.new("RGB", (17, 17), "red")))},
        {"views": VIEWS._replace(crop_boxes=((0.0, 0.0, 31.0, 23.0), VIEWS.crop_boxes[1]))},
        {"predictions": make_predictions(annotated=False)},
        {"predictions": PREDICTIONS._replace(boxes=PREDICTIONS.boxes + 1)},
        {"predictions": PREDICTIONS._replace(probabilities=PREDICTIONS.probabilities[::-1] ** 2)},
        {"predictions": PREDICTIONS._replace(labels=PREDICTIONS.fused.argmax(axis=1))},
        {"class_names": ["crow"] * 7},
        {"heading": "mistakes"},
        {"predictions": PREDICTIONS._replace(records=(Record(Path("x/wren.jpg"), 0, "test"),) * 13)},
    ],
)
def test_everything_is_drawn(changes, before, tmp_path):
    after = draw(tmp_path / "after.png", **changes)
    assert before.shape == after.shape
    assert not np.array_equal(before, after)


def test_right_ones_are_green_and_wrong_ones_red(tmp_path):
    labels = PREDICTIONS.fused.argmax(axis=1)
    labels[1] = (labels[1] + 1) % 7
    predictions = PREDICTIONS._replace(labels=labels)
    for index, drawn, absent in ((0, RIGHT_COLOR, WRONG_COLOR), (1, WRONG_COLOR, RIGHT_COLOR)):
        picture = draw(tmp_path / "one.png", predictions=predictions, index=index)
        assert count_color(picture, drawn) > count_color(picture, absent) == 0


def test_what_was_not_looked_at_is_not_drawn(tmp_path, monkeypatch):
    """Of one look image and saliency; of GLSim, whose looks are of one scale, the region too."""
    texts = []
    monkeypatch.setattr(Figure, "text", lambda _figure, _x, _y, text, **_options: texts.append(text))
    one = VIEWS._replace(crops=VIEWS.crops[:1])
    for views, num_looks, annotated in ((one, 1, True), (one, 2, True), (VIEWS, 2, False)):
        predictions, path = make_predictions(annotated=annotated), tmp_path / "one.png"
        plot_gallery([views], predictions, {"all": [0]}, names(predictions), path, num_looks=num_looks)
    assert texts[::2] == [
        "image | saliency",
        "image | saliency | region (yellow) and true box (dashed)",
        "image | saliency | region (yellow) | what the next scale saw",
    ]


@pytest.mark.parametrize("saliency", [np.ones((3, 3)), np.full((3, 3), np.nan)])
def test_odd_saliency_names_and_a_single_scale_are_drawn_without_a_warning(saliency, tmp_path):
    views = ScaleViews(GREY, (31, 23), VIEWS.crops[:1], VIEWS.crop_boxes[:1], (saliency,))
    odd = ["$x^$ 鳥\n" + "w" * 99] * 7
    assert draw(tmp_path / "odd.png", views, class_names=odd).std() > 0


def test_the_gallery_has_the_most_confident_mistakes_and_draws_the_rest_by_a_fixed_seed():
    predictions = make_predictions(num_images=97, num_classes=3)
    fused = predictions.fused
    is_wrong = fused.argmax(axis=1) != predictions.labels
    groups = choose_groups(predictions, 7)
    assert [heading.split(",")[0] for heading in groups] == [
        "the most confident mistakes",
        "other mistakes",
        "correct predictions",
    ]
    confident, others, right = groups.values()
    chosen = [*confident, *others, *right]
    assert len(set(chosen)) == 21
    assert is_wrong[chosen].tolist() == [True] * 14 + [False] * 7
    assert fused[confident].max(axis=1).tolist() == sorted(fused[is_wrong].max(axis=1))[: -7 - 1 : -1]
    assert groups == choose_groups(predictions, 7)
    assert right != np.flatnonzero(~is_wrong)[:7].tolist()  # drawn, not the first ones


def test_a_gallery_without_mistakes_is_shorter():
    predictions = make_predictions(num_images=5, num_classes=3)
    predictions = predictions._replace(labels=predictions.fused.argmax(axis=1))
    groups = choose_groups(predictions, 7)
    assert list(groups) == ["correct predictions, drawn at random"]
    assert sorted(*groups.values()) == list(range(5))


@pytest.mark.parametrize(
    ("name", "num_scales"),
    [("W" * 90, 1), ("W" * 90, 3), ("black-footed albatross " * 4, 2), ("鳥" * 60, 3)],
    ids=["wide-1", "wide-3", "words-2", "Chinese-3"],
)
def test_percentages_are_never_cut(name, num_scales, tmp_path, monkeypatch):
    """Lines end inside the figure, and long names leave out their middle."""
    saved, lines = [], []
    monkeypatch.setattr(style, "save_figure", lambda figure, _: saved.append(figure))
    predictions = make_predictions(num_scales=num_scales, num_images=1)
    views = VIEWS._replace(crops=VIEWS.crops[:1], crop_boxes=VIEWS.crop_boxes[:1])
    for label in range(2):  # a right one or a wrong one
        plot_gallery([views], predictions._replace(labels=np.array([label])), {"": [0]}, [name] * 7, tmp_path)
    for figure in saved:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there may be no Chinese font
            figure.draw_without_rendering()
            for text in figure.findobj(Text):
                assert text.get_window_extent().x1 <= figure.bbox.x1, text.get_text()
                lines.append(text.get_text())
    assert sum("%" in line for line in lines) >= 2
    assert all("…" in line for line in lines if "%" in line)

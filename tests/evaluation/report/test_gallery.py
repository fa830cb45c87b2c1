import numpy as np
import pytest
from PIL import Image

from ramstrans.evaluation.report.gallery import GalleryItem, choose_indices, plot_gallery
from ramstrans.evaluation.report.style import RIGHT_COLOR, WRONG_COLOR
from tests.evaluation.builders import make_predictions, pixels


def make_item(**changes):
    image = Image.fromarray(np.full((41, 67, 3), 90, dtype=np.uint8))
    item = GalleryItem(
        image=image,
        size=(67, 41),
        saliency=np.arange(35.0).reshape(5, 7),
        seen=image.crop((11, 3, 47, 39)),
        seen_box=(11.0, 3.0, 47.0, 39.0),
        box=(13.0, 5.0, 29.0, 31.0),
        true_box=(7.0, 5.0, 31.0, 37.0),
        crop=image.resize((17, 17)),
        true_name="wren",
        predicted_name="wren",
        probability=0.61,
        scale_predictions=["wren 53 %", "wren 71 %"],
    )
    return item._replace(**changes)


def draw(items, path):
    plot_gallery(items, path)
    return pixels(path)


def count_color(drawn, color):
    return int((drawn == tuple(bytes.fromhex(color[1:]))).all(axis=-1).sum())


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return draw([make_item()], tmp_path_factory.mktemp("gallery") / "before.png")


@pytest.mark.parametrize(
    "changes",
    [
        {"saliency": np.arange(35.0)[::-1].reshape(5, 7)},
        {"seen_box": (0.0, 0.0, 67.0, 41.0)},
        {"seen": Image.new("RGB", (36, 36), "red")},
        {"true_box": None},
        {"box": (13.0, 5.0, 37.0, 31.0)},
        {"probability": 0.67},
        {"scale_predictions": ["crow 53 %"]},
        {"crop": Image.new("L", (13, 19), 200)},
        {"image": Image.new("RGB", (67, 41), "red")},
        {"size": (134, 82)},
        {"predicted_name": "crow"},
    ],
    ids="-".join,
)
def test_every_field_is_drawn(changes, before, tmp_path):
    after = draw([make_item(**changes)], tmp_path / "after.png")
    assert before.shape == after.shape
    assert not np.array_equal(before, after)


def test_right_ones_are_green_and_wrong_ones_red(tmp_path):
    right = make_item(true_name="wren" * 5, predicted_name="wren" * 5)
    wrong = make_item(true_name="wren" * 5, predicted_name="crow" * 5)
    both = draw([wrong, right], tmp_path / "both.png")
    two_right = draw([right, right], tmp_path / "right.png")
    assert count_color(two_right, RIGHT_COLOR) > count_color(both, RIGHT_COLOR) > 0
    assert count_color(both, WRONG_COLOR) > count_color(two_right, WRONG_COLOR) == 0


def test_odd_saliency_and_names_are_drawn_without_a_warning(tmp_path):
    flat = make_item(saliency=np.ones((3, 3)), true_name="$x^$ 鳥\n" + "w" * 99)
    broken = make_item(saliency=np.full((3, 3), np.nan))
    assert draw([flat, broken], tmp_path / "odd.png").std() > 0


def test_the_gallery_draws_right_and_wrong_ones_by_a_fixed_seed():
    predictions = make_predictions(num_images=97, num_classes=3)
    is_right = predictions.fused.argmax(axis=1) == predictions.labels
    chosen = choose_indices(predictions, 7)
    assert len(set(chosen)) == 14
    assert is_right[chosen].tolist() == [True] * 7 + [False] * 7
    assert chosen == choose_indices(predictions, 7)
    assert chosen[:7] != np.flatnonzero(is_right)[:7].tolist()  # drawn, not the first ones


def test_a_gallery_without_mistakes_is_shorter():
    predictions = make_predictions(num_images=5, num_classes=3)
    predictions = predictions._replace(labels=predictions.fused.argmax(axis=1))
    assert sorted(choose_indices(predictions, 7)) == list(range(5))

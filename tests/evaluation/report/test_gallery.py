import numpy as np
import pytest
from PIL import Image

from ramstrans.evaluation.report.gallery import GalleryItem, plot_gallery
from ramstrans.evaluation.report.style import MAX_BYTES, RIGHT_COLOR, WRONG_COLOR


def make_item(**changes):
    photograph = Image.fromarray(np.full((41, 67, 3), 90, dtype=np.uint8))
    item = GalleryItem(
        image=photograph,
        saliency=np.arange(35.0).reshape(5, 7),
        saliency_frame=(11.0, 3.0, 47.0, 39.0),
        box=(13.0, 5.0, 29.0, 31.0),
        true_box=(7.0, 5.0, 31.0, 37.0),
        crop=photograph.resize((17, 17)),
        true_name="wren",
        predicted_name="wren",
        probability=0.61,
        scale_predictions=["wren 53 %", "wren 71 %"],
    )
    return item._replace(**changes)


def draw(items, path):
    plot_gallery(items, path)
    assert path.stat().st_size <= MAX_BYTES
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def count_color(pixels, color):
    return int((pixels == tuple(bytes.fromhex(color[1:]))).all(axis=-1).sum())


@pytest.mark.parametrize(
    "changes",
    [
        {"saliency": np.arange(35.0)[::-1].reshape(5, 7)},
        {"saliency_frame": (0.0, 0.0, 67.0, 41.0)},
        {"saliency": None},
        {"saliency_frame": None},
        {"box": None},
        {"true_box": None},
        {"box": (13.0, 5.0, 37.0, 31.0)},
        {"probability": 0.67},
        {"scale_predictions": ["crow 53 %"]},
        {"crop": Image.new("L", (13, 19), 200)},
        {"image": Image.new("RGB", (67, 41), "red")},
        {"predicted_name": "crow"},
    ],
    ids="-".join,
)
def test_every_field_is_drawn(changes, tmp_path):
    before = draw([make_item()], tmp_path / "before.png")
    after = draw([make_item(**changes)], tmp_path / "after.png")
    assert before.shape == after.shape
    assert not np.array_equal(before, after)


def test_right_ones_are_green_and_wrong_ones_red(tmp_path):
    right = make_item(true_name="wren" * 5, predicted_name="wren" * 5)
    wrong = make_item(true_name="wren" * 5, predicted_name="crow" * 5)
    none = draw([], tmp_path / "none.png")
    both = draw([wrong, right], tmp_path / "both.png")
    two_right = draw([right, right], tmp_path / "right.png")
    for color in (RIGHT_COLOR, WRONG_COLOR):
        assert count_color(both, color) > count_color(none, color) > 0
    assert count_color(two_right, RIGHT_COLOR) > count_color(both, RIGHT_COLOR)


def test_odd_saliency_and_names_are_drawn_without_a_warning(tmp_path):
    flat = make_item(saliency=np.ones((3, 3)), true_name="$x^$ 鳥\n" + "w" * 99)
    broken = make_item(saliency=np.full((3, 3), np.nan))
    grey = make_item(image=Image.new("L", (2003, 1009), 70), crop=Image.new("RGBA", (1009, 11)))
    draw([flat, broken, grey], tmp_path / "odd.png")
    assert (tmp_path / "odd.png").is_file()

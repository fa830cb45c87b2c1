"""Pictures of explanations."""

import io

import numpy as np
from PIL import Image

from ramstrans.inference.prediction import Prediction, ScalePrediction
from ramstrans.serve.drawing import draw, overlaid, to_unit
from ramstrans.serve.engine import Answer
from tests.serve.builders import png

SALIENCY = np.array([[0.0, 0.0], [0.0, 1.0]], np.float32)


def picture(*scales, saliency=SALIENCY, view=(0.0, 0.0, 100.0, 50.0)):
    answer = Answer(Prediction(None, scales=scales), saliency, view)
    return Image.open(io.BytesIO(draw(png(100, 50), answer, 10**6)))


def test_the_region_stands_beside_the_photograph_at_its_height():
    drawn = picture(ScalePrediction((), (), (10.0, 10.0, 30.0, 30.0), True))
    assert drawn.size == (512 + 8 + 256, 256)
    assert drawn.getpixel((512 + 8 + 128, 128)) == (10, 200, 30)  # as photographed
    assert drawn.getpixel((51, 100)) in {(238, 119, 51), (255, 255, 255)}  # the region's edge, at 5.12 x 10


def test_without_a_region_there_is_the_photograph_alone():
    assert picture(ScalePrediction((), (), None, None)).size == (512, 256)


def test_without_a_finite_saliency_the_photograph_stays_as_it_is():
    nan = np.full((2, 2), np.nan, np.float32)
    for saliency in (None, nan):
        drawn = picture(ScalePrediction((), (), None, None), saliency=saliency)
        assert drawn.getpixel((400, 200)) == (10, 200, 30)


def test_colours_lie_over_the_view_and_the_rest_is_dark():
    grey = Image.new("RGB", (40, 40), (100, 100, 100))
    drawn = overlaid(grey, SALIENCY, (20.0, -20.0, 60.0, 20.0))
    assert drawn.getpixel((5, 30)) == (45, 45, 45)  # outside the view
    low, high = drawn.getpixel((21, 1)), drawn.getpixel((39, 19))
    assert sum(high) > sum(low)


def test_zeros_are_no_division():
    assert to_unit(np.zeros((2, 2), np.float32)).tolist() == [[0, 0], [0, 0]]

"""Reading without torch gives the pixels that the evaluation sees, to one grey level."""

import subprocess
import sys

import numpy as np
import pytest

from ramstrans.data.loading.dataset import to_example
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.errors import UnreadableImageError
from ramstrans.export.standalone import pixels_size, read_example
from ramstrans.inference.inputs import read_input
from tests.export.photos import ODD, smooth

PREPROCESSINGS = {
    "crop": Preprocessing(61, (53, 37)),
    "squash": Preprocessing((64, 72), (56, 64), "squash"),
    "pad": Preprocessing((64, 72), (56, 64), "pad"),
}


@pytest.mark.parametrize("fit", PREPROCESSINGS)
@pytest.mark.parametrize("kind", ODD)
def test_odd_photographs_are_read_as_by_the_evaluation(tmp_path, kind, fit):
    path, preprocessing = ODD[kind](tmp_path), PREPROCESSINGS[fit]
    found = read_example(path, preprocessing, 10**8)
    resized = read_input(path, preprocessing, 10**8)
    expected = to_example(resized, preprocessing, pixels_size(preprocessing))
    assert found.pixels.shape == (3, *pixels_size(preprocessing))
    assert found.original_size == expected.original_size[::-1]
    difference = np.abs(found.pixels.astype(int) - expected.view.image.numpy().astype(int))
    assert difference.max() <= 1
    corners = np.array([[0.0, 0.0, *found.original_size]])
    np.testing.assert_allclose(
        found.geometry.from_original(corners[0]), expected.view.geometry.from_original(corners[0]), atol=1e-4
    )


@pytest.mark.parametrize("size", [(101, 1), (1, 101), (0, 0)])
def test_what_the_evaluation_refuses_is_refused_in_its_words(tmp_path, size):
    path = tmp_path / "photograph.png"
    if any(size):
        smooth(*size).save(path)
    else:
        path.write_bytes(b"not an image")
    with pytest.raises(UnreadableImageError) as expected:
        read_input(path, PREPROCESSINGS["crop"], 10**8)
    with pytest.raises(UnreadableImageError) as found:
        read_example(path, PREPROCESSINGS["crop"], 10**8)
    assert str(found.value) == str(expected.value)


def test_reading_needs_no_torch():
    absent = "import sys; sys.modules.update(dict.fromkeys(('torch', 'scipy', 'safetensors')))"
    code = f"{absent}; import ramstrans.export.standalone"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

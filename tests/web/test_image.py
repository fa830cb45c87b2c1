"""Photographs are read in the browser as `predict` reads them: resized, cut, upright, laid over white."""

import base64

import numpy as np
import pytest
from PIL import Image

from ramstrans.data.geometry import FILL
from ramstrans.data.preprocessing import Preprocessing
from ramstrans.data.reading.decode import MAX_ELONGATION
from ramstrans.data.reading.resize import read_resized
from ramstrans.errors import UnreadableImageError
from ramstrans.export.folder import preprocessing_values
from ramstrans.export.graph import resize_weights
from ramstrans.export.standalone import read_example
from tests.inference.builders import draw

pytestmark = pytest.mark.slow  # a browser

READ = """async ([content, rules]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const {readExample} = await import("/image.js");
  try {
    const {pixels, offset, scale, width, height} = await readExample(new Blob([bytes]), rules);
    return {pixels: btoa(String.fromCharCode(...pixels)), offset, scale, width, height};
  } catch (error) {
    return error.constructor.name + ": " + error.message;
  }
}"""


def read(page, path, preprocessing, max_pixels=10**6):
    """The pixels (3, h, w) that the page makes of a file, and where they lie; or why it cannot."""
    rules = preprocessing_values(preprocessing, max_pixels)
    rules |= {"fill": FILL, "max_elongation": MAX_ELONGATION}
    found = page.evaluate(READ, [base64.b64encode(path.read_bytes()).decode(), rules])
    if isinstance(found, str):
        return found
    pixels = np.frombuffer(base64.b64decode(found.pop("pixels")), np.uint8)
    return pixels.reshape(3, rules["height"], rules["width"]).astype(int), found


def noise(path, width, height, mode="RGB", **options):
    rng = np.random.default_rng(width)
    shape = (height, width, len(mode)) if len(mode) > 1 else (height, width)
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode).save(path, **options)
    return path


FITS = {
    "crop": Preprocessing(61, (53, 37)),
    "squash": Preprocessing((53, 64), (48, 60), "squash"),
    "pad": Preprocessing((53, 64), (48, 60), "pad"),
}


@pytest.mark.parametrize("size", [(211, 97), (97, 211), (61, 61), (40, 31)])
@pytest.mark.parametrize("fit", FITS)
def test_pixels_are_those_of_predict(page, tmp_path, fit, size):
    path, preprocessing = noise(tmp_path / "noise.png", *size), FITS[fit]
    found, lies = read(page, path, preprocessing)
    expected = read_example(path, preprocessing, 10**6)
    assert np.abs(found - expected.pixels).max() <= 1
    assert (lies["width"], lies["height"]) == expected.original_size == size
    assert lies["scale"] == pytest.approx(expected.geometry.scale)
    assert tuple(lies["offset"]) == expected.geometry.offset


@pytest.mark.parametrize("size", [(211, 97), (97, 211), (40, 31)])
def test_pixels_are_those_of_torchvision(page, tmp_path, size):
    """Which `predict` has; Pillow sometimes resizes the columns before the rows."""
    path, preprocessing = noise(tmp_path / "noise.png", *size), FITS["squash"]
    found, _ = read(page, path, preprocessing)
    difference = np.abs(found - read_resized(path, preprocessing.reading).pixels.numpy())
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_upright(page, tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = draw(tmp_path / f"o.{suffix}", 90, 64, orientation, exif=exif)
    found, lies = read(page, path, FITS["crop"])
    expected = read_example(path, FITS["crop"], 10**6)
    assert np.abs(found - expected.pixels).max() <= 2
    assert (lies["width"], lies["height"]) == expected.original_size


def test_a_large_jpeg_in_strips(page, tmp_path):
    """The page decodes it in full, in three strips; `predict` at a reduced size, which changes more."""
    path = draw(tmp_path / "large.jpg", 2500, 1100, quality=90)
    found, _ = read(page, path, FITS["squash"], 10**7)
    whole = Image.open(path).resize((64, 53), Image.Resampling.BILINEAR)
    assert np.abs(found - np.asarray(whole).transpose(2, 0, 1)).max() <= 2


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", "png"), ("L", "png"), ("RGBA", "webp"), ("L", "jpg")])
def test_other_modes(page, tmp_path, mode, suffix):
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    path = noise(tmp_path / f"other.{suffix}", 70, 80, mode, **options)
    found, _ = read(page, path, FITS["crop"])
    assert np.abs(found - read_example(path, FITS["crop"], 10**6).pixels).max() <= 2


def test_the_first_frame_of_an_animation(page, tmp_path):
    frames = [Image.new("RGB", (70, 70), color) for color in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    found, _ = read(page, tmp_path / "two.gif", FITS["crop"])
    assert found[:, 5, 5].tolist() == [255, 0, 0]


def test_what_cannot_be_read_is_said_in_words(page, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    assert read(page, tmp_path / "empty.jpg", FITS["crop"]) == "Unreadable: The file is empty."
    (tmp_path / "text.jpg").write_bytes(b"not a photograph")
    assert "it is damaged, or of a kind such as HEIC" in read(page, tmp_path / "text.jpg", FITS["crop"])
    path = noise(tmp_path / "long.png", 303, 3)
    assert "3 pixels: one side is more than 100 times" in read(page, path, FITS["crop"])
    assert "3 pixels; at most 900 are read." in read(page, path, FITS["crop"], 900)
    with pytest.raises(UnreadableImageError):
        read_example(path, FITS["crop"], 900)


WEIGHTS = """async ([length, newLength]) => {
  const {resizeWeights} = await import("/image.js");
  const {first, weights, width} = resizeWeights(length, newLength);
  const rows = Array.from({length: newLength}, () => new Array(length).fill(0));
  rows.forEach((row, i) => { for (let k = 0; k < width; k++) row[first[i] + k] += weights[i * width + k]; });
  return rows;
}"""


@pytest.mark.parametrize(("length", "new"), [(4, 2), (5, 5), (3, 7), (97, 13), (2, 1), (1, 3)])
def test_weights_are_those_of_the_graph(page, length, new):
    found = page.evaluate(WEIGHTS, [length, new])
    np.testing.assert_allclose(found, resize_weights(length, new).numpy(), atol=1e-6)


def test_protection_that_changes_pixels_is_found(page):
    check = "async () => (await import('/image.js')).readsPixels()"
    assert page.evaluate(check)
    page.evaluate("""() => {
      const read = OffscreenCanvasRenderingContext2D.prototype.getImageData;
      OffscreenCanvasRenderingContext2D.prototype.getImageData = function (...where) {
        const image = read.apply(this, where);
        image.data[8] ^= 1;
        return image;
      };
    }""")
    assert not page.evaluate(check)
    page.reload()

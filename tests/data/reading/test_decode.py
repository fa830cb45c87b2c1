import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from ramstrans.data.reading.color import _to_eight_bits
from tests.data.builders import decode_image
from tests.data.reading.photos import HEIGHT, ORIENTATION, WIDTH, assert_close, pixels, png, png_chunk


@pytest.mark.parametrize(
    ("name", "mode", "options", "tolerance"),
    [
        ("a.png", "RGB", {}, 0),
        ("a.jpg", "RGB", {"quality": 95, "subsampling": 0}, 8),
        ("a.webp", "RGB", {"lossless": True}, 0),
        ("a.bmp", "RGB", {}, 0),
        ("a.ppm", "RGB", {}, 0),
        ("a.tif", "RGB", {}, 0),
        ("a.tif", "RGB", {"compression": "tiff_lzw"}, 0),
        ("a.jp2", "RGB", {}, 0),
        ("a.gif", "RGB", {}, 40),
        ("a.avif", "RGB", {"quality": 95, "subsampling": "4:4:4"}, 10),
        ("a.heic", "RGB", {"quality": 95, "chroma": 444}, 10),
        ("a.jfif", "RGB", {"quality": 95, "subsampling": 0}, 8),
        ("a.jpg", "CMYK", {"quality": 95}, 8),
        ("a.tif", "CMYK", {}, 2),
        ("a.png", "RGBA", {}, 0),
        ("wrong_suffix.png", "RGB", {"format": "BMP"}, 0),
    ],
)
def test_every_format_gives_the_image(tmp_path, photo, name, mode, options, tolerance):
    photo.convert(mode).save(tmp_path / name, **options)
    image = decode_image(tmp_path / name)
    assert_close(image, photo, tolerance)


@pytest.mark.parametrize(("name", "mode"), [("a.png", "L"), ("a.png", "1"), ("a.png", "LA"), ("a.tif", "L")])
def test_greyscale_becomes_three_equal_channels(tmp_path, photo, name, mode):
    grey = photo.convert(mode)
    grey.save(tmp_path / name)
    assert_close(decode_image(tmp_path / name), grey.convert("RGB"), 0)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("a.png", np.array([[0, 257 * 3, 257 * 131, 65535]], np.uint16), [0, 3, 131, 255]),
        ("a.tif", np.array([[0, 257 * 3, 257 * 131, 65535]], np.uint16), [0, 3, 131, 255]),
        ("a.pgm", np.array([[0, 257 * 3, 257 * 131, 65535]], np.uint16), [0, 3, 131, 255]),
        ("a.tif", np.array([[0, 257 * 3, 257 * 131, 65535]], np.int32), [0, 3, 131, 255]),
        ("a.png", np.array([[0, 16, 1638, 4095]], np.uint16), [0, 1, 102, 255]),  # 12 bits
        ("a.tif", np.array([[0, 16, 1638, 4000]], np.uint16), [0, 1, 102, 249]),
        ("a.pgm", np.array([[0, 3, 131, 255]], np.uint16), [0, 3, 131, 255]),  # 8 bits
        ("a.png", np.array([[0, 257, 4096, 4112]], np.uint16), [0, 1, 16, 16]),  # dark, of 16 bits
        ("a.tif", np.array([[-10, 245, 500, 500]], np.int32), [0, 128, 255, 255]),
        ("a.tif", np.array([[0, 0.2, 1.0, np.nan]], np.float32), [0, 51, 255, 0]),
        ("a.tif", np.array([[0, 7, 131, 250]], np.float32), [0, 7, 131, 250]),
        ("a.tif", np.array([[-1e6, 0, 1e6, np.inf]], np.float32), [0, 128, 255, 0]),
        ("a.tif", np.array([[5e5, 5e5, 5e5, 5e5]], np.float32), [0, 0, 0, 0]),
    ],
)
def test_more_than_eight_bits_are_scaled_not_clipped(tmp_path, values, expected, name):
    Image.fromarray(values).save(tmp_path / name)
    assert pixels(decode_image(tmp_path / name))[0].tolist() == [[value] * 3 for value in expected]


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=7))
def test_scaling_keeps_the_order_of_the_values(values):
    scaled = _to_eight_bits(np.array([sorted(values)], np.float32))
    assert (np.diff(scaled.astype(int)) >= 0).all()


def test_sixteen_bit_png_with_colours(tmp_path):
    row = struct.pack(">6H", 65535, 257 * 7, 0, 257 * 131, 0, 65535)
    (tmp_path / "a.png").write_bytes(png(2, 1, 16, b"\0" + row))
    assert pixels(decode_image(tmp_path / "a.png")).tolist() == [[[255, 7, 0], [131, 0, 255]]]


def test_alpha_is_laid_over_white(tmp_path):
    Image.fromarray(np.array([[[200, 0, 0, 0], [200, 0, 0, 51], [200, 0, 0, 255]]], np.uint8)).save(
        tmp_path / "a.png"
    )
    assert pixels(decode_image(tmp_path / "a.png"))[0].tolist() == [[255] * 3, [244, 204, 204], [200, 0, 0]]
    Image.fromarray(np.array([[[100, 0], [100, 51], [100, 255]]], np.uint8), "LA").save(tmp_path / "b.png")
    assert pixels(decode_image(tmp_path / "b.png"))[0, :, 0].tolist() == [255, 224, 100]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_transparent_palette_is_laid_over_white(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.save(tmp_path / "a.png", transparency=transparency)
    assert pixels(decode_image(tmp_path / "a.png"))[0].tolist() == [[200, 0, 0], [255] * 3, [0, 0, 200]]


def test_transparent_colour_key_is_laid_over_white(tmp_path):
    Image.fromarray(np.array([[[200, 0, 0], [0, 7, 0]]], np.uint8)).save(
        tmp_path / "a.png", transparency=(200, 0, 0)
    )
    assert pixels(decode_image(tmp_path / "a.png"))[0].tolist() == [[255] * 3, [0, 7, 0]]


def test_ycck_jpeg(tmp_path):
    cyan, black = 200, 55
    stream = io.BytesIO()
    Image.new("CMYK", (16, 16), (cyan, 127, 127, black)).save(stream, "JPEG", quality=100)
    content = bytearray(stream.getvalue())
    content[content.index(b"Adobe") + 11] = 2  # the same numbers, now declared as YCCK: inverted, neutral
    (tmp_path / "a.jpg").write_bytes(content)
    grey = cyan * (255 - black) / 255
    assert np.abs(pixels(decode_image(tmp_path / "a.jpg")) - grey).max() <= 3


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "a.avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(tmp_path, photo, name, orientation):
    undone = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90,
    }[orientation](np.asarray(photo))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    photo.save(tmp_path / name, exif=exif, quality=100)
    assert_close(decode_image(tmp_path / name), Image.fromarray(undone), 30)


def test_heic_is_rotated_by_its_own_rule_alone(tmp_path, photo):
    # ISO 23008-12: the decoder has rotated it already; the EXIF orientation does not count
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    photo.save(tmp_path / "a.heic", exif=exif, quality=95)
    assert_close(decode_image(tmp_path / "a.heic"), photo, 30)


def test_exif_behind_the_pixels_of_a_png(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = png_chunk(b"eXIf", data)
    (tmp_path / "a.png").write_bytes(content[:-12] + chunk + content[-12:])
    assert decode_image(tmp_path / "a.png").size == (HEIGHT, WIDTH)


def test_damaged_exif_is_ignored_without_a_warning(tmp_path, photo):
    photo.save(tmp_path / "a.jpg", exif=b"Exif\0\0rubbish, not a directory")
    cut = Image.Exif()
    cut[ORIENTATION] = 6
    photo.save(tmp_path / "b.jpg", exif=cut.tobytes()[:-9])
    with ThreadPoolExecutor(5) as executor:
        images = list(executor.map(decode_image, [tmp_path / "a.jpg", tmp_path / "b.jpg"] * 17))
    assert {image.mode for image in images} == {"RGB"}
    assert images[0].size == (WIDTH, HEIGHT)


def test_warnings_of_others_still_come(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    decode_image(tmp_path / "a.png")
    with pytest.raises(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_first_frame_of_an_animation(tmp_path, name):
    frames = [Image.new("RGB", (7, 5), color) for color in ("red", "blue", "lime")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(tmp_path / name) as image:
        assert image.n_frames == 3
    assert (pixels(decode_image(tmp_path / name)) == [255, 0, 0]).all()


@pytest.mark.parametrize("kind", ["note", "profile"])
def test_a_png_may_have_several_megabytes_of_notes_or_of_a_colour_profile(tmp_path, kind):
    info, more = PngImagePlugin.PngInfo(), {}
    if kind == "note":
        info.add_text("history", "a" * 3_000_000, zip=True)
    else:
        more["icc_profile"] = b"\0" * 3_000_000
    Image.new("RGB", (8, 8), (10, 20, 30)).save(tmp_path / "a.png", pnginfo=info, **more)
    assert pixels(decode_image(tmp_path / "a.png"))[0][0].tolist() == [10, 20, 30]

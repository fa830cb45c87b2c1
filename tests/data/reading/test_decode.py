import errno
import io
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ramstrans.data.reading.color import _to_eight_bits
from ramstrans.data.reading.decode import decode_reduced
from ramstrans.errors import UnreadableImageError
from tests.data.builders import decode_image

WIDTH, HEIGHT = 61, 47
ORIENTATION = 0x0112


def decode_smallest(path, **options):
    return decode_reduced(path, (1, 1), **options)


@pytest.fixture
def photo():
    """Smooth, so that JPEG keeps it, and different in all four corners."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    channels = (x * 255 // (WIDTH - 1), y * 255 // (HEIGHT - 1), (x + y) * 255 // (WIDTH + HEIGHT - 2))
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def pixels(image):
    return np.asarray(image).astype(int)


def assert_close(image, expected, tolerance):
    assert image.mode == "RGB"
    assert np.abs(pixels(image) - pixels(expected)).max() <= tolerance


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, rows=b""):
    """A PNG of RGB pixels, written by hand."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


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


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "ppm", "tif", "webp", "jp2", "avif", "heic"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("decode", [decode_image, decode_smallest])
def test_truncated_files_are_refused(tmp_path, photo, suffix, share, decode):
    path = tmp_path / f"a.{suffix}"
    photo.resize((WIDTH * 2, HEIGHT * 2)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnreadableImageError) as caught:
        decode(path)
    assert caught.value.path == path


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "ppm", "tif", "webp", "jp2", "avif", "heic"])
def test_damaged_files_give_an_image_or_the_one_error(tmp_path, photo, suffix):
    path = tmp_path / f"a.{suffix}"
    photo.save(path)
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(31):
        damaged = bytearray(content)
        for place in generator.geometric(1 / 60, size=5):
            damaged[min(place, len(content)) - 1] = generator.integers(256)
        path.write_bytes(damaged)
        for read in (decode_image, decode_smallest):
            try:
                read(path, max_pixels=100_000)
            except UnreadableImageError as error:
                assert error.reason  # noqa: PT017


@pytest.mark.parametrize("decode", [decode_image, decode_smallest])
@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_lacks_only_its_end_is_read_with_one_warning(tmp_path, photo, caplog, decode, lost, mode):
    path = tmp_path / "a.jpg"
    photo.convert(mode).save(path)
    whole = decode(path)
    path.write_bytes(path.read_bytes()[:-lost])
    for _ in range(2):
        found = decode(path)
        if lost < 3:  # the third byte is of the last block
            assert np.array_equal(
                pixels(getattr(found, "image", found)), pixels(getattr(whole, "image", whole))
            )
    assert caplog.messages == [f"{path}: the end mark of the JPEG is missing; it is read as it is"]


def test_a_progressive_jpeg_without_its_end_is_refused(tmp_path, photo):
    photo.save(tmp_path / "a.jpg", progressive=True)
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-2])
    with pytest.raises(UnreadableImageError, match="truncated file"):
        decode_image(tmp_path / "a.jpg")


def test_a_jpeg_cut_anywhere_before_its_last_block_is_refused(tmp_path, photo):
    photo.save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    for length in range(len(content) // 2, len(content) - 40, 17):
        (tmp_path / "a.jpg").write_bytes(content[:length])
        with pytest.raises(UnreadableImageError):
            decode_image(tmp_path / "a.jpg")


def test_heic_without_its_library_names_the_extra(tmp_path, photo, without_heif):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(
        UnreadableImageError, match=r'a HEIC image; pip install "ramstrans\[heif\]" reads them'
    ):
        decode_image(tmp_path / "a.jpg")


def test_reasons(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image at all, but long enough to be one")
    (tmp_path / "script.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 7 5\n")
    reasons = {
        "missing.jpg": "no such file",
        "empty.jpg": "empty file",
        "text.jpg": "not an image in a known format",
        "script.jpg": "not an image in a known format",
        ".": "a folder, not an image file",
    }
    for name, reason in reasons.items():
        for read in (decode_image, decode_smallest):
            with pytest.raises(UnreadableImageError, match=reason) as caught:
                read(tmp_path / name)
            assert caught.value.path == tmp_path / name


def test_a_file_without_permission(tmp_path, photo, monkeypatch):
    photo.save(tmp_path / "a.png")

    def refuse(path, *mode, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UnreadableImageError, match="no permission to read it"):
        decode_image(tmp_path / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImageError, match="not a regular file"):
        decode_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("side", [10_007, 40_009])  # above Pillow's limits for a warning and an error
def test_too_many_pixels_are_refused_by_the_header(tmp_path, side):
    (tmp_path / "a.png").write_bytes(png(side, side, 8))
    for read in (decode_image, decode_smallest):
        with pytest.raises(UnreadableImageError, match=f"{side} x {side} pixels, over the limit of 2,867"):
            read(tmp_path / "a.png", max_pixels=2867)


@pytest.mark.parametrize("limit", [100, 2000, None])
def test_our_limit_is_the_one_that_counts(tmp_path, photo, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    photo.save(tmp_path / "a.png")
    assert_close(decode_image(tmp_path / "a.png", max_pixels=WIDTH * HEIGHT), photo, 0)
    with pytest.raises(UnreadableImageError, match="over the limit"):
        decode_image(tmp_path / "a.png", max_pixels=WIDTH * HEIGHT - 1)
    assert limit == Image.MAX_IMAGE_PIXELS


def halvings(original, at_least):
    """How often both sides can be halved, three times at most, above what is asked for; (height, width)."""
    fits = (
        n for n in (3, 2, 1) if all(o // least >= 2**n for o, least in zip(original, at_least, strict=True))
    )
    return next(fits, 0)


SIDES = st.integers(1, 97)


@given(
    size=st.tuples(SIDES, SIDES),
    at_least=st.tuples(SIDES, SIDES),
    orientation=st.integers(1, 8),
)
def test_a_reduced_jpeg_keeps_both_sides(tmp_path_factory, size, at_least, orientation):
    path, exif = tmp_path_factory.getbasetemp() / "reduced.jpg", Image.Exif()
    exif[ORIENTATION] = orientation
    Image.new("L", size, 131).save(path, exif=exif)
    reduced = decode_reduced(path, at_least)
    original = size if orientation >= 5 else size[::-1]
    assert reduced.original_size == original
    times = halvings(original, at_least)
    assert reduced.image.size[::-1] == tuple(-(-side // 2**times) for side in original)
    assert np.abs(pixels(reduced.image) - 131).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_shows_the_same(tmp_path, photo, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    photo.resize((8 * WIDTH, 8 * HEIGHT), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", exif=exif)
    reduced = decode_reduced(tmp_path / "a.jpg", (HEIGHT, HEIGHT))
    whole = decode_image(tmp_path / "a.jpg")
    assert reduced.original_size == whole.size[::-1]
    assert sorted(reduced.image.size) == [HEIGHT, WIDTH]
    assert_close(reduced.image, whole.resize(reduced.image.size, Image.Resampling.BOX), 6)


def test_a_jpeg_of_several_images_is_reduced_too(tmp_path, photo):
    photo.save(tmp_path / "a.mpo", save_all=True, append_images=[photo.rotate(180)], quality=95)
    reduced = decode_reduced(tmp_path / "a.mpo", (23, 23))
    assert reduced.image.size == (31, 24)
    assert_close(reduced.image, photo.resize((31, 24), Image.Resampling.BOX), 12)


def test_other_formats_are_not_reduced(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    reduced = decode_reduced(tmp_path / "a.png", (5, 5))
    assert reduced.original_size == (HEIGHT, WIDTH)
    assert_close(reduced.image, photo, 0)


def test_the_limit_of_pixels_is_of_the_original(tmp_path, photo):
    photo.save(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImageError, match="over the limit"):
        decode_reduced(tmp_path / "a.jpg", (5, 5), max_pixels=WIDTH * HEIGHT - 1)
    assert decode_reduced(tmp_path / "a.jpg", (5, 5), max_pixels=WIDTH * HEIGHT).image.size == (8, 6)


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="no list of open files on this system")
def test_no_file_stays_open(tmp_path, photo):
    for suffix in ("jpg", "png", "tif", "gif", "webp"):
        photo.save(tmp_path / f"good.{suffix}")
        content = (tmp_path / f"good.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(content[: len(content) // 2])
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208
    kept = []
    for path in tmp_path.iterdir():
        for read in (decode_image, decode_smallest):
            try:
                kept.append(read(path))
            except UnreadableImageError as error:
                kept.append(error)
    assert len(os.listdir("/dev/fd")) == before  # noqa: PTH208
    assert sum(isinstance(result, Image.Image) for result in kept) == 5


@pytest.mark.parametrize(("size", "is_refused"), [((1, 100), False), ((1, 101), True), ((203, 2), True)])
def test_elongated_images_are_refused_from_the_header(tmp_path, size, is_refused):
    path = tmp_path / "thread.png"
    Image.new("RGB", size).save(path)
    if is_refused:
        with pytest.raises(UnreadableImageError, match="too elongated"):
            decode_image(path)
    else:
        assert decode_image(path).size == size


def test_transient_errors_are_retried_and_the_last_one_is_named(tmp_path, photo, opening_fails):
    photo.save(tmp_path / "a.png")
    opening_fails(4)
    assert_close(decode_image(tmp_path / "a.png"), photo, 0)
    opening_fails(5)
    with pytest.raises(UnreadableImageError, match="input/output error"):
        decode_image(tmp_path / "a.png")


def test_an_error_in_the_middle_of_a_file_is_retried(tmp_path, photo, monkeypatch, caplog):
    photo.save(tmp_path / "a.png")
    content, failed = (tmp_path / "a.png").read_bytes(), []

    class Stream(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 100 and not failed:
                failed.append(self.tell())
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    monkeypatch.setattr(Path, "open", lambda *_: Stream(content))
    monkeypatch.setattr("ramstrans.data.reading.retry.PAUSES", [0.001] * 4)
    assert_close(decode_image(tmp_path / "a.png"), photo, 0)
    assert len(failed) == 1
    assert "a.png: Input/output error; retry 1 of 4" in caplog.text

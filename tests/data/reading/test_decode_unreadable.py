"""Files that are broken, too large, or cannot be opened: one error that says why."""

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ramstrans.errors import UnreadableImageError
from tests.data.builders import decode_image
from tests.data.reading.photos import (
    HEIGHT,
    WIDTH,
    assert_close,
    decode_smallest,
    pixels,
    png,
)


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

"""Helpers of the tests of decoding: a picture, its pixels, and a PNG written by hand."""

import struct
import zlib

import numpy as np
from PIL import Image

from ramstrans.data.reading.decode import decode_reduced

WIDTH, HEIGHT = 61, 47
ORIENTATION = 0x0112


def decode_smallest(path, **options):
    return decode_reduced(path, (1, 1), **options)


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


def draw_photo():
    """Smooth, so that JPEG keeps it, and different in all four corners."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    channels = (x * 255 // (WIDTH - 1), y * 255 // (HEIGHT - 1), (x + y) * 255 // (WIDTH + HEIGHT - 2))
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))

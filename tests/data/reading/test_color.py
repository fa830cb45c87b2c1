import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from ramstrans.data.reading.color import to_rgb
from tests.data.builders import decode_image


def profile(primaries, gamma=2.2, description=b"wide"):
    """An RGB profile, written by hand: XYZ of red, green and blue (D50), and one gamma."""
    white = (0.9642, 1.0, 0.8249)

    def xyz(values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", len(description) + 1) + description + bytes(79)
    tags = {b"desc": text + bytes(-len(text) % 4), b"wtpt": xyz(white)}
    tags |= {name + b"XYZ": xyz(value) for name, value in zip((b"r", b"g", b"b"), primaries, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    offset, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += name + struct.pack(">II", offset + len(data), len(content))
        data += content
    size = offset + len(data)
    header = struct.pack(">I4xI4s4s4s12x4s", size, 0x02100000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    header = header.ljust(68, b"\0") + struct.pack(">3i", *(round(value * 65536) for value in white))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
SWAPPED = (SRGB[1], SRGB[0], SRGB[2])
"""Red where sRGB has green, and the other way round: easy to see."""


@pytest.fixture
def stripes():
    return Image.fromarray(np.array([[[200, 40, 10], [40, 200, 10], [128, 128, 128]]], np.uint8).repeat(8, 1))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.tif", {}),
        ("a.webp", {"lossless": True}),
        ("a.avif", {"quality": 100}),
        ("a.heic", {"quality": 100}),
        ("a.jpg", {"quality": 100, "subsampling": 0}),
    ],
)
def test_the_embedded_profile_is_applied(tmp_path, stripes, name, options):
    stripes = stripes.resize((24, 16), Image.Resampling.NEAREST)
    stripes.save(tmp_path / name, icc_profile=profile(SWAPPED), **options)
    found = np.asarray(decode_image(tmp_path / name)).astype(int)[8, [4, 12, 20]]
    assert np.abs(found - [[40, 200, 10], [200, 40, 10], [128, 128, 128]]).max() <= 12


def test_images_in_memory_too(stripes):
    stripes.info["icc_profile"] = profile(SWAPPED)
    assert np.abs(np.asarray(to_rgb(stripes)).astype(int)[0, 0] - [40, 200, 10]).max() <= 8


def test_transparency_and_profile(stripes):
    image = stripes.convert("RGBA")
    image.putalpha(0)
    image.info["icc_profile"] = profile(SWAPPED)
    assert (np.asarray(to_rgb(image)) >= 254).all()


@pytest.mark.parametrize(
    "content",
    [
        b"rubbish",
        profile(SWAPPED)[:200],
        profile(SWAPPED, description=b"sRGB IEC61966-2.1"),  # called sRGB: taken at its word
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    ],
)
def test_srgb_damaged_and_foreign_profiles_change_nothing(stripes, content):
    before = np.asarray(stripes).copy()
    stripes.info["icc_profile"] = content
    assert np.array_equal(np.asarray(to_rgb(stripes)), before)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK"])
def test_a_profile_of_another_mode_than_the_image(stripes, mode):
    image = stripes.convert(mode)
    plain = np.asarray(image.convert("RGB")).astype(int)
    image.info["icc_profile"] = profile(SWAPPED)
    found = np.asarray(to_rgb(image)).astype(int)
    expected = plain if mode == "L" else plain[..., [1, 0, 2]]
    assert np.abs(found - expected).max() <= 20


def test_a_profile_that_survives_a_file_in_memory(stripes):
    stream = io.BytesIO()
    stripes.save(stream, "PNG", icc_profile=profile(SWAPPED))
    with Image.open(stream) as image:
        image.load()
        assert np.asarray(to_rgb(image))[0, 0].argmax() == 1

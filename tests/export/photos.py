"""Photographs of every kind that people have."""

import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def smooth(width, height, seed=0):
    """An RGB image of smooth noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def rotated(folder, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = folder / f"rotated_{orientation}.jpg"
    smooth(310, 170, orientation).save(path, quality=92, exif=exif)
    return path


def sixteen_bits(folder):
    values = np.asarray(smooth(150, 130).convert("L")).astype(np.uint16) * 257
    Image.fromarray(values).save(folder / "sixteen.png")
    return folder / "sixteen.png"


def palette(folder, transparency):
    image = smooth(140, 120).quantize(30)
    path = folder / f"palette_{type(transparency).__name__}.png"
    image.save(path, transparency=transparency)
    return path


def saved(folder, name, image, **options):
    image.save(folder / name, **options)
    return folder / name


def see_through(width, height):
    image = smooth(width, height).convert("RGBA")
    image.putalpha(smooth(width, height, 5).convert("L"))
    return image


ODD = {
    **{
        f"rotated {number}": (lambda folder, number=number: rotated(folder, number)) for number in range(1, 9)
    },
    "CMYK": lambda folder: saved(folder, "cmyk.jpg", smooth(200, 160).convert("CMYK"), quality=90),
    "16 bits": sixteen_bits,
    "palette, one colour transparent": lambda folder: palette(folder, 3),
    "palette, many transparent": lambda folder: palette(folder, bytes(range(0, 240, 8))),
    "transparent": lambda folder: saved(folder, "alpha.png", see_through(133, 151)),
    "grey and transparent": lambda folder: saved(folder, "la.png", see_through(133, 151).convert("LA")),
    "grey": lambda folder: saved(folder, "grey.jpg", smooth(260, 200).convert("L"), quality=90),
    "black and white": lambda folder: saved(folder, "bits.png", smooth(99, 88).convert("1")),
    "1 pixel high": lambda folder: saved(folder, "line.png", smooth(99, 1)),
    "1 pixel wide": lambda folder: saved(folder, "column.png", smooth(1, 99)),
    "1 pixel": lambda folder: saved(folder, "dot.png", smooth(1, 1)),
    "GIF": lambda folder: saved(folder, "still.gif", smooth(120, 90)),
    "WebP": lambda folder: saved(folder, "photo.webp", smooth(320, 240), quality=80),
    "large JPEG": lambda folder: saved(folder, "large.jpg", smooth(1900, 1300), quality=85),
    "tiny": lambda folder: saved(folder, "tiny.png", smooth(5, 4)),
}
"""Write one into a folder, by what it is."""

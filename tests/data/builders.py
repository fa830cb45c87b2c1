"""Small tars and shards."""

import io
import os
import tarfile

import numpy as np
from PIL import Image

from ramstrans.data.reading.decode import decode_reduced
from ramstrans.data.records import ImageSet, Part, Record
from ramstrans.data.sharding.writer import write_shards


def decode_image(path, **options):
    """The pixels of a file at its original size."""
    return decode_reduced(path, (10**6, 10**6), **options).image


def jpeg(seed=0, size=(61, 47), kind="JPEG"):
    """The bytes of noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, kind)
    return stream.getvalue()


def make_tar(path, files, tar_format=tarfile.GNU_FORMAT):
    """A tar of (name, content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tar_format) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def noise_set(folder, num_images=13):
    """Images of two classes in a folder, every fifth a test image, some with boxes and parts."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for index in range(num_images):
        path = folder / f"bird {index}.JPG"
        path.write_bytes(jpeg(index))
        box = (0.1, 2.0, 40.0 + index, 1 / 3 + 7) if index % 3 else None
        parts = (Part("left eye", 11.0, index / 7), Part("beak", 3.5, 5.0))[: index % 3]
        records.append(Record(path, index % 2, "test" if index % 5 == 4 else "train", box, parts))
    return ImageSet(("crow", "wren"), tuple(records), (("Corvus",), ("Troglodytes",)))


def noise_shards(folder, **options):
    """A set of noise and its shards, of five images at most."""
    images = noise_set(folder / "photographs")
    write_shards(images, folder / "shards", root=folder, **{"max_images": 5} | options)
    return images, folder / "shards"


def flip_byte(path, index, change=1):
    """Change a byte of a file, but neither its size nor its date."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[index] ^= change
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

"""Fixtures that several tests of this folder share."""

import errno
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ramstrans.data.reading import formats
from ramstrans.data.records import Record


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Five images of several sizes."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    made = []
    for index, (width, height) in enumerate([(40, 48), (48, 40), (41, 41), (61, 37), (37, 53)]):
        path = folder / f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        made.append(Record(path, index % 3, "train"))
    return tuple(made)


@pytest.fixture
def opening_fails(monkeypatch):
    """Call it with a number: so many of the next openings of files fail; returns the list of these files."""

    def begin(count=1):
        opened, failed = Path.open, []

        def fails(path, *mode, **options):
            if len(failed) < count:
                failed.append(path)
                raise OSError(errno.EIO, "Input/output error", str(path))
            return opened(path, *mode, **options)

        monkeypatch.setattr(Path, "open", fails)
        monkeypatch.setattr("ramstrans.data.reading.retry.PAUSES", [0.001] * 4)
        return failed

    return begin


@pytest.fixture
def without_heif(monkeypatch):
    """A machine without pillow-heif."""
    known = (formats.has_heif, formats.readable_formats, formats.image_suffixes)
    for function in known:
        function.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    yield
    for function in known:
        function.cache_clear()

"""What several tests of this folder share."""

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ramstrans.data.records import Record


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Five photographs of several sizes."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    made = []
    for index, (width, height) in enumerate([(40, 48), (48, 40), (41, 41), (61, 37), (37, 53)]):
        path = folder / f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        made.append(Record(path, index % 3, "train"))
    return tuple(made)


@pytest.fixture
def opening_fails_once(monkeypatch):
    """Call it, and the next file that is opened fails for a moment; gives the list it is then named in."""

    def begin():
        opened, failed = Path.open, []

        def fails_once(path, *mode, **options):
            if not failed:
                failed.append(path)
                raise OSError(errno.EIO, "Input/output error", str(path))
            return opened(path, *mode, **options)

        monkeypatch.setattr(Path, "open", fails_once)
        return failed

    return begin

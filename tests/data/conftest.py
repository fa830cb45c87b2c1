"""What several tests of this folder share."""

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

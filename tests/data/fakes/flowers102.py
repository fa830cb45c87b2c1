"""Flowers-102: numbers in two MATLAB files, images by number."""

import numpy as np
from scipy.io import savemat

from tests.data.fakes.photographs import NUM_TEST, NUM_TRAIN, write_photograph

NUM_VAL = 2


def make_flowers102(root):
    """The layout below `root` itself, with the first three of the classes; images are in order of class."""
    per_class = NUM_TRAIN + NUM_VAL + NUM_TEST
    places = np.arange(1, 3 * per_class + 1)
    index = (places - 1) % per_class
    for place in places:
        write_photograph(root / "jpg" / f"image_{place:05}.jpg")
    savemat(root / "imagelabels.mat", {"labels": ((places - 1) // per_class + 1).astype(np.uint8)})
    savemat(
        root / "setid.mat",
        {
            "trnid": places[index < NUM_TRAIN].astype(np.uint16)[::-1],
            "valid": places[(index >= NUM_TRAIN) & (index < NUM_TRAIN + NUM_VAL)].astype(np.uint16),
            "tstid": places[index >= NUM_TRAIN + NUM_VAL].astype(np.uint16),
        },
    )
    return root

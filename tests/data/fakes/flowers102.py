"""Flowers-102: numbers in two MATLAB files, images by number."""

import numpy as np
from scipy.io import savemat

from tests.data.fakes.blocks import NUM_TEST, NUM_TRAIN, write_image

NUM_VAL = 2


def make_flowers102(root):
    """The data set in `root` itself, with the first three of the classes; images are in order of class."""
    per_class = NUM_TRAIN + NUM_VAL + NUM_TEST
    numbers = np.arange(1, 3 * per_class + 1)
    copy = (numbers - 1) % per_class
    for number in numbers:
        write_image(root / "jpg" / f"image_{number:05}.jpg")
    savemat(root / "imagelabels.mat", {"labels": ((numbers - 1) // per_class + 1).astype(np.uint8)})
    savemat(
        root / "setid.mat",
        {
            "trnid": numbers[copy < NUM_TRAIN].astype(np.uint16)[::-1],
            "valid": numbers[(copy >= NUM_TRAIN) & (copy < NUM_TRAIN + NUM_VAL)].astype(np.uint16),
            "tstid": numbers[copy >= NUM_TRAIN + NUM_VAL].astype(np.uint16),
        },
    )
    return root

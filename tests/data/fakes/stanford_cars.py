"""Stanford Cars: MATLAB structures with small unsigned integers; labelled test annotations beside devkit/."""

import numpy as np
from scipy.io import savemat

from tests.data.fakes.blocks import NUM_TEST, NUM_TRAIN, write_image

CLASSES = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "smart fortwo Convertible 2012")
FIELDS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")


def make_stanford_cars(root):
    """The data set in `root` itself."""
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array([CLASSES], dtype=object)})
    for split, count, file in (
        ("train", NUM_TRAIN, "devkit/cars_train_annos.mat"),
        ("test", NUM_TEST, "cars_test_annos_withlabels.mat"),
    ):
        numbers = [1 + index % 3 for index in range(3 * count)]
        rows = [
            (np.uint8(1 + index), np.uint8(2), np.uint16(255 + index), np.uint16(300), np.uint8(number), name)
            for index, number in enumerate(numbers)
            for name in [f"{index + 1:05}.jpg"]
        ]
        for row in rows:
            write_image(root / f"cars_{split}" / row[-1])
        write_car_annotations(root / file, rows)
    return root


def write_car_annotations(file, rows, fields=FIELDS):
    """A structure array of one row, (1, N), as MATLAB has it."""
    annotations = np.zeros((1, len(rows)), dtype=[(field, object) for field in fields])
    for index, row in enumerate(rows):
        annotations[0, index] = tuple(row[FIELDS.index(field)] for field in fields)
    savemat(file, {"annotations": annotations})

"""Stanford Dogs: MATLAB lists, and VOC's XML in files without an ending."""

import numpy as np
from scipy.io import savemat

from tests.data.fakes.blocks import NUM_TEST, NUM_TRAIN, voc_xml, write_image

BREEDS = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02116738-African_hunting_dog")
BOXES = {0: [(0, 2, 11, 13)], 1: [(1, 2, 7, 11), (5, 0, 13, 7)]}
"""Of the images of each breed; of the others the first one's."""


def make_stanford_dogs(root):
    """The data set in `root` itself."""
    (root / "lists").mkdir(parents=True)
    for split, indices in (("train", range(NUM_TRAIN)), ("test", range(NUM_TRAIN, NUM_TRAIN + NUM_TEST))):
        images = [(breed, label, index) for label, breed in enumerate(BREEDS, start=1) for index in indices]
        names = []
        for breed, _, index in images:
            names.append(f"{breed}/{breed.split('-')[0]}_{index * 37}.jpg")
            write_image(root / "Images" / names[-1])
            annotation = root / "Annotation" / names[-1].removesuffix(".jpg")
            annotation.parent.mkdir(parents=True, exist_ok=True)
            annotation.write_text(voc_xml(breed, BOXES.get(index, BOXES[0])))
        write_dog_list(root / "lists" / f"{split}_list.mat", names, [label for _, label, _ in images])
    return root


def write_dog_list(file, names, labels):
    """Cells in a column, as MATLAB has them."""
    savemat(
        file,
        {
            "file_list": np.array([[name] for name in names], dtype=object),
            "annotation_list": np.array([[name.removesuffix(".jpg")] for name in names], dtype=object),
            "labels": np.array([[float(label)] for label in labels]),
        },
        do_compression=True,
    )

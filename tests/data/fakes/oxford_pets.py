"""Oxford-IIIT Pets: lists of four columns, trimaps for more than all, heads for most training images."""

import numpy as np
from PIL import Image

from tests.data.fakes.blocks import (
    HEIGHT,
    NUM_TEST,
    NUM_TRAIN,
    WIDTH,
    voc_xml,
    write_image,
    write_lines,
)

BREEDS = {1: ("Abyssinian", 1, 1), 2: ("american_bulldog", 2, 1), 30: ("saint_bernard", 2, 20)}
"""By class: the name in the files, the species, and the number among its breeds."""


def make_oxford_pets(root):
    """The data set in `root` itself."""
    trimap = np.full((HEIGHT, WIDTH), 2, np.uint8)
    trimap[5:11, 3:13] = 3
    trimap[7:11, 5:12] = 1
    trimap[HEIGHT - 1, WIDTH - 1] = 3
    folder = root / "annotations"
    for name in ("trimaps", "xmls"):
        (folder / name).mkdir(parents=True)
    lines = {}
    for split, numbers in (("trainval", range(NUM_TRAIN)), ("test", range(NUM_TRAIN, NUM_TRAIN + NUM_TEST))):
        lines[split] = []
        for class_id, (breed, species, breed_id) in BREEDS.items():
            for number in numbers:
                image = f"{breed}_{100 + number}"
                lines[split].append(f"{image} {class_id} {species} {breed_id}")
                write_image(root / "images" / f"{image}.jpg")
                Image.fromarray(trimap).save(folder / "trimaps" / f"{image}.png")
                if split == "trainval":
                    xml = voc_xml("cat" if species == 1 else "dog", [(6, 8, 9, 10)], f"{image}.jpg")
                    (folder / "xmls" / f"{image}.xml").write_text(xml)
        write_lines(folder / f"{split}.txt", lines[split])
    (folder / "xmls" / "saint_bernard_104.xml").unlink()  # as 9 are missing
    (folder / "trimaps" / "._Abyssinian_100.png").write_bytes(b"of the authors' Macintosh")
    Image.fromarray(trimap).save(folder / "trimaps" / "saint_bernard_99.png")  # as 41 are in no list
    (root / "images" / "Abyssinian_100.mat").write_bytes(b"left over by its authors")
    header = ("#Image CLASS-ID SPECIES BREED ID", "#ID: 1:37 Class ids", "#SPECIES: 1:Cat 2:Dog")
    write_lines(folder / "list.txt", [*header, *lines["trainval"], *lines["test"]])
    return root

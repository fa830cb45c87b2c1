"""NABirds: CUB's lists with UUIDs for images, groups among the classes, and a hierarchy."""

import uuid

from tests.data.fakes.blocks import NUM_TEST, NUM_TRAIN, write_image, write_lines

CLASSES = {
    "0": "Birds",
    "1": "Ducks, Geese, and Swans",
    "19": "Wrens",
    "22": "Pacific Wren",  # a species, whose only kind has its name too
    "295": "Common Eider (Adult male)",
    "296": "Common Eider (Female/juvenile)",
    "746": "Pacific Wren",
    "999": "Nobody's Group",
}
HIERARCHY = {"1": "0", "19": "0", "22": "19", "295": "1", "296": "1", "746": "22", "999": "0"}
LEAVES = ("295", "296", "746")


def make_nabirds(root):
    """The data set in `root` itself."""
    images = [(leaf, index) for leaf in LEAVES for index in range(NUM_TRAIN + NUM_TEST)]
    keys = [str(uuid.UUID(int=10**30 * (index + 1))) for index in range(len(images))]
    paths = [
        f"{int(leaf):04}/{key.replace('-', '')}.jpg" for key, (leaf, _) in zip(keys, images, strict=True)
    ]
    for path in paths:
        write_image(root / "images" / path)

    def write(name, values):
        write_lines(root / name, (f"{key} {value}" for key, value in values))

    write("classes.txt", CLASSES.items())
    write("hierarchy.txt", HIERARCHY.items())
    write("images.txt", zip(keys, paths, strict=True))
    write("image_class_labels.txt", zip(keys, (leaf for leaf, _ in images), strict=True))
    write("train_test_split.txt", zip(keys, (int(i < NUM_TRAIN) for _, i in images), strict=True))
    write("bounding_boxes.txt", zip(keys, (f"{index} 3 7 11" for index in range(len(keys))), strict=True))
    write("sizes.txt", ((key, "23 31") for key in keys))
    write("parts/parts.txt", [("0", "bill"), ("4", "left eye")])
    write("parts/part_locs.txt", [(key, part) for key in keys for part in ("0 5 7 1", "4 -1 -1 0")])
    return root

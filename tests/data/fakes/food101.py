"""Food-101: each split as text and as JSON."""

import json

from tests.data.fakes.blocks import NUM_TEST, NUM_TRAIN, write_image, write_lines

CLASSES = ("apple_pie", "baby_back_ribs", "waffles")


def make_food101(root):
    """The data set in `root` itself."""
    write_lines(root / "meta" / "classes.txt", CLASSES)
    write_lines(root / "meta" / "labels.txt", ("Apple pie", "Baby back ribs", "Waffles"))
    for split, numbers in (("train", range(NUM_TRAIN)), ("test", range(NUM_TRAIN, NUM_TRAIN + NUM_TEST))):
        images = {name: [f"{name}/{1005649 + number}" for number in numbers] for name in CLASSES}
        listed = [image for of_class in images.values() for image in of_class]
        write_lines(root / "meta" / f"{split}.txt", listed)
        (root / "meta" / f"{split}.json").write_text(json.dumps(images))
        for image in listed:
            write_image(root / "images" / f"{image}.jpg")
    return root

"""Cut the photographs of CUB-200-2011 so that the bird is at one end of a wide picture.

    python scripts/offcentre.py CUB_200_2011 OUT [--classes 20]

Writes two class folders with the official split: `whole`, the photographs as they are, and `offcentre`: from
the bird's box, with a tenth of its width beside it, to the far edge of the photograph (left or right by the
name's hash), and half as high as wide where the bird allows it. Both are the same birds, so that what differs
between them is where the bird is.
"""

import argparse
import hashlib
from pathlib import Path

from PIL import Image

MARGIN = 0.1
"""Beside the bird, as a share of its width; above and below it is half of that, of its height."""


def main() -> None:
    """Read the data set's lists; cut and write every image of the first classes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--classes", type=int, default=20)
    options = parser.parse_args()
    names, labels, is_train, boxes = (
        {number: values for number, *values in table(options.root / file)}
        for file in ("images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt")
    )
    for number, (name,) in names.items():
        if int(labels[number][0]) > options.classes:
            continue
        split = "train" if is_train[number] == ["1"] else "test"
        image = Image.open(options.root / "images" / name).convert("RGB")
        x, y, width, height = map(float, boxes[number])
        window = beside(name, (x, y, x + width, y + height), image.size)
        for kind, picture in (("whole", image), ("offcentre", image.crop(window))):
            path = options.output / kind / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, quality=92)


def table(path: Path) -> list[list[str]]:
    """The words of each line of a file."""
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines()]


def beside(
    name: str, box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The window, `(x0, y0, x1, y1)` in pixels, with a bird's box at one end."""
    (x0, y0, x1, y1), (width, height) = box, size
    x1, y1 = min(x1, width), min(y1, height)
    margin = MARGIN * (box[2] - box[0])
    is_left = hashlib.sha256(name.encode()).digest()[0] % 2 == 0
    left, right = (max(0.0, x0 - margin), width) if is_left else (0.0, min(width, x1 + margin))
    tall = min(max((right - left) / 2, (y1 - y0) * (1 + MARGIN)), height)
    top = min(max(0.0, (y0 + y1) / 2 - tall / 2), height - tall)
    return round(left), round(top), round(right), round(top + tall)


if __name__ == "__main__":
    main()

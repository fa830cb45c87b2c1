"""Cut what is beside the birds out of the test photographs of CUB-200-2011: photographs of no bird.

    python scripts/empty.py CUB_200_2011 OUT

Of each test photograph the largest rectangle beside the bird's box is written where both its sides have
`SIDE` pixels or more. What else a photograph shows there, such as a second bird without a box, nobody knows.
"""

import argparse
from pathlib import Path

from far import Photograph, read, strips, table

SIDE = 112
"""Least width and height of a cutting, in pixels."""


def main() -> None:
    """Read the arguments and write the cuttings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    names, is_train, boxes = (
        table(options.root / f"{name}.txt") for name in ("images", "train_test_split", "bounding_boxes")
    )
    options.output.mkdir(parents=True)
    for number, (name,) in names.items():
        if is_train[number] == ["0"]:
            x, y, width, height = map(float, boxes[number])
            cut(
                Photograph(options.root / "images" / name, (x, y, x + width, y + height)),
                options.output / Path(name).name,
            )


def cut(photograph: Photograph, path: Path) -> None:
    """Write the largest rectangle beside a bird, if it is large enough."""
    x0, y0, x1, y1 = max(strips(photograph), key=lambda strip: (strip[2] - strip[0]) * (strip[3] - strip[1]))
    if min(x1 - x0, y1 - y0) >= SIDE:
        read(photograph.path).crop((x0, y0, x1, y1)).save(path, quality=92)


if __name__ == "__main__":
    main()

"""Annotations in the XML of PASCAL VOC: the boxes of one image.

http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

from pathlib import Path
from xml.etree import ElementTree

from ramstrans.data.datasets.lists import parse_number, read_text
from ramstrans.data.records import Box
from ramstrans.errors import DataError


def read_voc_boxes(file: Path) -> list[Box]:
    """The corners `xmin ymin xmax ymax` of each object, in order, as written.

    Args:
        file: The annotation.

    Raises:
        DataError: The file is missing or not XML, or a box is incomplete or empty.
    """
    text = read_text(file)
    try:
        return [_corners(box) for box in ElementTree.fromstring(text).iterfind("object/bndbox")]
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def _corners(box: ElementTree.Element) -> Box:
    x0, y0, x1, y1 = (_child(box, name) for name in ("xmin", "ymin", "xmax", "ymax"))
    if x0 >= x1 or y0 >= y1:
        raise ValueError(
            f"the box is {x0:g}, {y0:g}, {x1:g}, {y1:g}; xmin must be below xmax, ymin below ymax"
        )
    return x0, y0, x1, y1


def _child(box: ElementTree.Element, name: str) -> float:
    text = box.findtext(name)
    if text is None:
        raise ValueError(f"a bndbox has no {name}")
    return parse_number(text)

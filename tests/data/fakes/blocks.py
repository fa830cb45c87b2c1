"""Building blocks of the tiny data sets."""

from PIL import Image

WIDTH, HEIGHT = 23, 31

NUM_TRAIN, NUM_TEST = 5, 2
"""Images per class."""


def write_image(path, color=(90, 120, 40), size=(WIDTH, HEIGHT)):
    """A JPEG of one color, whatever its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, "JPEG")
    return path


def write_lines(path, lines, end="\n"):
    """A list file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}{end}" for line in lines))


def edit(file, old, new):
    """Replace all occurrences, of which there must be some."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def voc_xml(name, boxes, file_name="%s"):
    """An annotation of PASCAL VOC; those of Stanford Dogs have a literal `%s` as file name."""
    objects = "".join(
        f"\t<object>\n\t\t<name>{name}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<bndbox>\n"
        f"\t\t\t<xmin>{x0}</xmin>\n\t\t\t<ymin>{y0}</ymin>\n\t\t\t<xmax>{x1}</xmax>\n\t\t\t<ymax>{y1}</ymax>\n"
        "\t\t</bndbox>\n\t</object>\n"
        for x0, y0, x1, y1 in boxes
    )
    return (
        f"<annotation>\n\t<folder>02085620</folder>\n\t<filename>{file_name}</filename>\n\t<size>\n"
        f"\t\t<width>{WIDTH}</width>\n\t\t<height>{HEIGHT}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        f"\t<segmented>0</segmented>\n{objects}</annotation>"
    )

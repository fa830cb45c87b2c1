"""FGVC-Aircraft: lists by level and split, names with blanks and slashes, boxes from pixel 1."""

from tests.data.fakes.blocks import NUM_TEST, NUM_TRAIN, write_image, write_lines

TAXA = {
    "737-700": ("Boeing 737", "Boeing"),
    "F/A-18": ("F/A-18", "McDonnell Douglas"),
    "DC-9-30": ("DC-9", "McDonnell Douglas"),
}
LISTS = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
NUM_VAL = 2


def make_fgvc_aircraft(root):
    """The data set in `root/fgvc-aircraft-2013b`, as it is unpacked."""
    data = root / "fgvc-aircraft-2013b" / "data"
    levels = [(name, *TAXA[name]) for name in TAXA]
    splits = ["train"] * NUM_TRAIN + ["val"] * NUM_VAL + ["test"] * NUM_TEST
    images = [
        (f"{number * 101 + 34309:07}", split, names)
        for number, (split, names) in enumerate((split, names) for split in splits for names in levels)
    ]
    for image, _, _ in images:
        write_image(data / "images" / f"{image}.jpg")
    for index, (level, file) in enumerate(LISTS.items()):
        write_lines(data / file, dict.fromkeys(names[index] for names in levels))
        for split in ("train", "val", "test"):
            write_lines(
                data / f"images_{level}_{split}.txt",
                (f"{image} {names[index]}" for image, its, names in images if its == split),
            )
        write_lines(
            data / f"images_{level}_trainval.txt",
            (f"{image} {names[index]}" for image, its, names in images if its != "test"),
        )
    write_lines(data / "images_box.txt", (f"{image} 1 2 13 7" for image, _, _ in images))
    return root

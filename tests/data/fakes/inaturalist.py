"""iNaturalist: COCO's lists of 2017 and 2018, the folders of 2021."""

import json

from tests.data.fakes.blocks import NUM_TEST, NUM_TRAIN, write_image

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")
TAXA = {
    7: ("Animalia", "Chordata", "Aves", "Passeriformes", "Corvidae", "Corvus", "corax"),
    11: ("Plantae", "Tracheophyta", "Pinopsida", "Pinales", "Araucariaceae", "Agathis", "montana"),
    13: ("Animalia", "Arthropoda", "Insecta", "Hymenoptera", "Braconidae", "Agathis", "montana"),
}
"""By number, out of order on purpose in the lists; the last two have the same name."""


def make_inaturalist2018(root):
    """Lists beside `train_val2018/`, names as numbers, and `categories.json` with the true ones."""
    numbers = [
        {"id": key, "name": str(key), "supercategory": taxa[2]} | _ranks(taxa, str)
        for key, taxa in TAXA.items()
    ]
    _write_lists(root, "2018", "train_val2018", numbers)
    named = [
        {"id": key, "name": f"{taxa[5]} {taxa[6]}", "supercategory": taxa[2]} | _ranks(taxa, str)
        for key, taxa in reversed(TAXA.items())
    ]
    (root / "categories.json").write_text(json.dumps(named))
    return root


def make_inaturalist2017(root):
    """Lists in `train_val2017/`, images in `train_val_images/`, boxes in lists of their own."""
    categories = [
        {"id": key, "name": f"{taxa[5]} {taxa[6]}", "supercategory": taxa[2]} for key, taxa in TAXA.items()
    ]
    _write_lists(root, "2017", "train_val_images", categories)
    (root / "train_val2017").mkdir()
    for name in ("train", "val"):
        file = root / f"{name}2017.json"
        content = json.loads(file.read_text())
        file.rename(root / "train_val2017" / file.name)
        boxes = [
            {
                "id": 5 * number + copy,
                "image_id": image["id"],
                "category_id": 7,
                "bbox": box,
                "area": 1.5,
                "iscrowd": 0,
            }
            for number, image in enumerate(content["images"][:2])
            for copy, box in enumerate([[1.0, 2.0, 5.0, 7.0], [3.0, 1.0, 11.0, 2.0]][: number + 1])
        ]
        content = content | {"annotations": boxes}
        (root / f"{name}_2017_bboxes.json").write_text(json.dumps(content))
    return root


def make_inaturalist2021(root, train="train_mini"):
    """One folder a species."""
    for folder, count in ((train, NUM_TRAIN), ("val", NUM_TEST)):
        for number, taxa in enumerate(TAXA.values()):
            for index in range(count):
                name = f"{index * 7919:08x}-b0a5-4bbb.jpg"
                write_image(root / folder / "_".join((f"{number:05}", *taxa)) / name)
    (root / f"{train}.json").write_text("this gigabyte is never read")
    return root


def _ranks(taxa, make):
    return {rank: make(name) for rank, name in zip(RANKS, taxa, strict=False)}


def _write_lists(root, year, folder, categories):
    """COCO's format, with the fields that iNaturalist added."""
    first = 0
    for name, count in (("train", NUM_TRAIN), ("val", NUM_TEST)):
        keys = [key for _ in range(count) for key in TAXA]
        images = [
            {
                "license": 3,
                "file_name": f"{folder}/{TAXA[key][2]}/{key}/{first + number:06x}.jpg",
                "rights_holder": "Zoë",
                "height": 31,
                "width": 23,
                "id": first + number,
            }
            for number, key in enumerate(keys)
        ]
        for image in images:
            write_image(root / image["file_name"])
        annotations = [
            {"id": image["id"], "category_id": key, "image_id": image["id"]}
            for image, key in zip(images, keys, strict=True)
        ]
        content = {
            "info": {"year": int(year), "contributor": "iNaturalist"},
            "images": images,
            "licenses": [{"id": 3, "name": "CC BY-NC", "url": ""}],
            "annotations": annotations,
            "categories": categories,
        }
        (root / f"{name}{year}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        first += len(images)

"""How regions were judged, as sections of the report and as a line; see `judged_report`."""

from collections.abc import Mapping, Sequence
from typing import Any

from ramstrans.evaluation.report.tables import table
from ramstrans.plain import counted

MASK_NAMES = {
    "alone": "region alone",
    "deleted": "region deleted",
    "moved_alone": "moved box alone",
    "moved_deleted": "moved box deleted",
}
"""What is seen of an image; moved: a box of the same sides anywhere in the image."""

STABILITY_NAMES = {
    "mirror_iou": "mirrored: mean IoU",
    "mirror_corloc": "mirrored: IoU of at least 50 %",
    "shift_iou": "shifted by 4 % of a side: mean IoU",
}

Judged = Mapping[str, Any]


def judged_line(judged: Judged) -> str:
    """How the first region was judged, in a line."""
    first = judged["regions"][0]
    seen = ", ".join(f"{name} {first[key]:.1f} %" for key, name in MASK_NAMES.items())
    areas = ", ".join(
        f"{name} {judged['curves'][name]['area']:.1f} % (random order "
        f"{judged['curves'][f'random_{name}']['area']:.1f})"
        for name in ("deletion", "insertion")
    )
    return (
        f"Regions judged on {counted(judged['num_images'], 'image')}: scale 1 is right about {seen}, whole "
        f"{judged['whole']:.1f} %; area under {areas}; IoU with the region of the mirrored image "
        f"{first['mirror_iou']:.1f} %, of shifted ones {first['shift_iou']:.1f} %"
    )


def judged_sections(judged: Judged) -> list[str]:
    """The section of the report's page, in Markdown."""
    same = judged["same_answer"]
    return [
        "## Regions judged",
        f"On {counted(judged['num_images'], 'image')}. Scale 1 alone looks at images of which parts are "
        f"deleted; it is right about {judged['whole']:.1f} % of the whole ones. What is deleted becomes "
        f"{judged['fill']}. Moved: a box of the same sides anywhere in the image; its mean IoU with the "
        f"region of scale 1 is {judged['regions'][0]['moved_iou']:.1f} %. If the answer depends on the "
        "region, the region alone is worth more, and its loss costs more, than those of the moved box.",
        _mask_table(judged),
        *_moved(judged),
        "Deletion and insertion of the locations in the order of their saliency "
        "(https://arxiv.org/abs/1806.07421): area under the mean probability of the class that scale 1 gives "
        "the whole image. Good saliency has a small area under deletion and a large one under insertion, "
        "compared with a random order.",
        _area_table(judged),
        "Stability: the region of the changed image, put back into the frame of the original. The fused "
        f"answer is the same for {same['mirror']:.1f} % of the mirrored and {same['shift']:.1f} % of the "
        "shifted images.",
        table(["", *_names(judged)], _rows(judged, STABILITY_NAMES)),
    ]


def _names(judged: Judged) -> list[str]:
    return [f"region of scale {one['scale']}" for one in judged["regions"]]


def _rows(judged: Judged, names: Mapping[str, str]) -> list[Sequence[str]]:
    """A row for each measure, and a column for each region."""
    return [[name, *(f"{one[key]:.1f} %" for one in judged["regions"])] for key, name in names.items()]


def _mask_table(judged: Judged) -> str:
    header, rows = ["", *_names(judged)], _rows(judged, MASK_NAMES)
    if (true_box := judged["true_box"]) is not None:
        header.append("true box")
        values = [f"{true_box[key]:.1f} %" if key in true_box else "-" for key in MASK_NAMES]
        rows = [[*row, value] for row, value in zip(rows, values, strict=True)]
    return table(header, rows)


def _moved(judged: Judged) -> list[str]:
    moved = judged["moved"]
    if moved is None:
        return []
    later = [(f"scale {one['scale']}", one) for one in moved["scales"]]
    rows = [
        [name, f"{one['found']:.1f} %", f"{one['moved']:.1f} %"]
        for name, one in [*later, ("fused", moved["fused"])]
    ]
    return [
        "What later scales are worth with every region moved at random in what its scale sees, top-1:",
        table(["", "regions as found", "moved"], rows),
    ]


def _area_table(judged: Judged) -> str:
    curves = judged["curves"]
    rows = [
        [name, *(f"{curves[f'{order}{name}']['area']:.1f} %" for order in ("", "random_"))]
        for name in ("deletion", "insertion")
    ]
    return table(["area", "by saliency", "random order"], rows)

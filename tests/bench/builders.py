"""Tiny cases, and a clock that moves only when told."""

import dataclasses

from ramstrans.bench.cases import CASES

TINY = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}


def tiny_case(**fields):
    """A case of 32 px, in 16 patches and 2 images, of the first case's kind."""
    defaults = {
        "backbone": "vit_tiny_patch16_224",
        "image_size": 32,
        "batch_size": 2,
        "backbone_options": TINY,
        "num_rounds": 2,
    }
    return dataclasses.replace(CASES["inference-448-fp32"], **defaults | fields)


def tiny_cases():
    """Every case of the table, of its kind, tiny."""
    return {
        name: dataclasses.replace(
            case, **vars(tiny_case(precision=case.precision, figure=case.figure)) | kind_of(case)
        )
        for name, case in CASES.items()
    }


def kind_of(case):
    names = ("task", "figure", "measure", "reach", "at_least", "needs_gpu")
    return {name: getattr(case, name) for name in names}


class Clock:
    """Seconds that pass only in `sleep`."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

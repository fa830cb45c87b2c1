"""Tiny cases."""

import dataclasses

from benchmarks.cases import CASES
from tests.bench.builders import TINY


def tiny_case(**fields):
    """A case of 2 images of 32 px in 16 patches, of the first case's kind."""
    defaults = {
        "backbone": "vit_tiny_patch16_224",
        "image_size": 32,
        "batch_size": 2,
        "backbone_options": TINY,
        "num_rounds": 2,
    }
    return dataclasses.replace(CASES["inference-448-fp32"], **defaults | fields)

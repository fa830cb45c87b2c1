"""Real photographs and weights beside the repository; tests that need them skip where they are absent."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("RAMSTRANS_SHARED", Path(__file__).parents[2] / "shared"))
CUB50 = SHARED / "data/cub50/CUB_200_2011"
DEIT_TINY = SHARED / "weights/deit_tiny_patch16_224.safetensors"


def needs(*paths):
    """Skip the test unless all of these exist."""
    for path in paths:
        if not path.exists():
            pytest.skip(f"no {path}; set RAMSTRANS_SHARED to the folder that holds data/ and weights/")

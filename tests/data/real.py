"""Real photographs, where they are."""

import os
from pathlib import Path

import pytest


def real_cub50():
    """The folder of 50 classes of CUB-200-2011; without it the test is skipped."""
    shared = Path(os.environ.get("RAMSTRANS_SHARED", Path(__file__).parents[2] / "../shared"))
    root = shared / "data/cub50/CUB_200_2011"
    if not root.is_dir():
        pytest.skip(f"no {root}; set RAMSTRANS_SHARED to the folder that holds data/cub50")
    return root

"""How many images fit, with hand-worked numbers and against counting up."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramstrans.training.planning.cost import StepCost
from ramstrans.training.planning.fits import Ground
from tests.processes import python

PHASES = np.array([[0.0, 0.0, 10.0], [40.0, 20.0, 2.0]])
COST = StepCost(100, 200, 100, 10, 5, 20, 1, PHASES, 1.0, 1.0)


@pytest.mark.parametrize(
    ("ground", "expected"),
    [
        (Ground(0), 300 + 200),  # weights and state; 20 images of the first phase
        (Ground(0, ema=True), 400 + 200),
        (Ground(0, processes=4), 300 + 100 + 200),  # buckets
        (Ground(0, processes=4, fsdp=True), 300 / 4 + 20 + 4 * 10 + 200),
        (Ground(0, processes=4, fsdp=True, ema=True), 400 / 4 + 20 + 4 * 10 + 200),
        (Ground(0, processes=1, fsdp=True), 300 + 200),
    ],
)
def test_what_processes_hold(ground, expected):
    assert ground.peak(COST, 20) == expected


def test_parts_hold_all_gradients_and_images():
    assert Ground(0).peak(COST, 20, parts=3) == 300 + (100 + 200) + 2 * 20


def test_the_fewest_parts_are_found_by_hand():
    """Beside weights, state and gradients; a tenth of the memory is left free."""
    assert Ground(10_000).parts(COST, 64) == 1
    assert Ground(1000).parts(COST, 64) == 2  # 940 of 900 in one; 400 + 320 + 32 in two
    assert Ground(600).parts(COST, 64) == 8  # 540: in eight 400 + 80 + 7 * 8, in seven 400 + 100 + 6 * 10
    assert Ground(400).parts(COST, 64) is None
    assert Ground(600).parts(COST, 1) == 1


def test_the_most_images_are_found_by_hand():
    assert Ground(1000).most_images(COST) == 60  # 300 + 10 b <= 900
    assert Ground(402).most_images(COST) == 0  # 300 + 40 + 20 + 2 b <= 361.8
    assert Ground(403).most_images(COST) == 1


@given(
    st.floats(1, 5000),
    st.integers(1, 90),
    st.lists(st.tuples(*(st.integers(0, 100) for _ in range(3))), min_size=1, max_size=4),
    st.integers(1, 9),
    st.booleans(),
)
def test_what_is_found_fits_and_one_more_does_not(memory, images_per_process, phases, processes, fsdp):
    phases = np.array([(0, 0, 1), *phases], float)
    cost = COST._replace(phases=phases, gradients=100)
    ground = Ground(memory, processes, fsdp)
    most = ground.most_images(cost)
    assert most == 0 or ground.peak(cost, most) <= ground.usable
    assert ground.peak(cost, most + 1) > ground.usable
    fitting = [
        parts
        for parts in range(1, images_per_process + 1)
        if ground.peak(
            cost,
            math.ceil(images_per_process / parts),
            math.ceil(images_per_process / math.ceil(images_per_process / parts)),
        )
        <= ground.usable
    ]
    assert ground.parts(cost, images_per_process) == (fitting[0] if fitting else None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "images", "parts"), [("fp32", 137, 1), ("bf16", 137, 1), ("bf16", 40, 3)]
)
def test_two_processes_that_share_a_model_hold_what_was_told(precision, images, parts):
    """Not more, and two blocks less at most: a CPU gathers none ahead. Gradients are exchanged once."""
    done = python("-m", "tests.training.sharing", precision, images, parts)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    held = found["kept"] + found["step"]
    assert held <= found["told"] <= 1.015 * held + 2 * found["block"]
    assert found["collectives"]["_reduce_scatter_base_"] == 6 + 1  # blocks, and what is outside of them

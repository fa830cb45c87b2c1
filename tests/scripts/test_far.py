"""Far birds: whole photographs among backgrounds without birds, the same for a seed, read as CUB is."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ramstrans.data.datasets.cub import read_cub

PATH = Path(__file__).parents[2] / "scripts" / "far.py"
spec = importlib.util.spec_from_file_location("far", PATH)
far = importlib.util.module_from_spec(spec)
spec.loader.exec_module(far)

SIDE = 160
BIRD, NOTHING = (255, 0, 0), (0, 0, 0)


@pytest.fixture
def photographs(tmp_path):
    """Green and blue backgrounds without black, birds of pure red."""
    rng, made = np.random.default_rng(0), []
    for index in range(7):
        pixels = rng.integers(40, 200, (45, 60, 3), dtype=np.uint8)
        pixels[:, :, 0] = 0
        x, y = int(rng.integers(0, 40)), int(rng.integers(0, 25))
        box = (float(x), float(y), x + 20.0, y + 20.0)
        pixels[y : y + 20, x : x + 20] = BIRD
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        made.append(far.Photograph(tmp_path / f"{index}.png", box))
    return made


@pytest.mark.parametrize("seed", range(6))
def test_a_whole_photograph_among_backgrounds_without_birds(seed, photographs):
    first, *others = photographs
    picture, placement = far.compose(first, others, SIDE, np.random.default_rng(seed))
    assert picture.size == (SIDE, SIDE)
    width, height = (round(length * scale) for length, scale in zip((60, 45), placement.scale, strict=True))
    x, y = placement.corner
    assert 0 <= x <= SIDE - width
    assert 0 <= y <= SIDE - height
    whole = Image.open(first.path).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(picture)[y : y + height, x : x + width], np.asarray(whole))
    around = np.asarray(picture).copy()
    around[y : y + height, x : x + width] = (0, 99, 99)
    assert around[:, :, 0].max() == 0  # no bird, not even a resampled edge of one
    assert (around[:, :, 1:].max(axis=2) > 0).all()  # and nothing is left black
    x0, y0, x1, y1 = placement.box(first.box)
    assert 0.004 < (x1 - x0) * (y1 - y0) / SIDE**2 < 0.021


@pytest.mark.parametrize("size", [(10, 8), (40, 80), (159, 3), (80, 80)])
def test_tiles_fill_the_picture_once(size):
    for seed in range(20):
        corner, tiles = far.layout(size, SIDE, np.random.default_rng(seed))
        count = np.zeros((SIDE, SIDE), int)
        for x, y, width, height in [*tiles, (*corner, *size)]:
            assert min(x, y) >= 0
            assert min(width, height) > 0
            count[y : y + height, x : x + width] += 1
        assert (count == 1).all()


def test_a_photograph_is_never_enlarged_and_at_most_half_as_long(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "small.png")
    tiny = far.Photograph(tmp_path / "small.png", (1.0, 1.0, 2.0, 2.0))
    assert far.tile_size(tiny, 1000, np.random.default_rng(0)) == (40, 30)
    assert far.tile_size(tiny, 60, np.random.default_rng(0))[0] <= 30


def test_without_background_it_stops(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "full.png")
    full = far.Photograph(tmp_path / "full.png", (0.0, 0.0, 40.0, 30.0))
    with pytest.raises(SystemExit, match="leave no background"):
        far.compose(full, [full], 100, np.random.default_rng(0))


def test_the_data_set(birds, tmp_path):
    """Splits and classes as they were; boxes and parts where the bird is; the same pictures for a seed."""
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        far.make(birds, tmp_path / name, num_classes=2, side=192, seed=seed)
    before, found = read_cub(birds), read_cub(tmp_path / "one")
    assert found.class_names == before.class_names[:2]
    kept = [record for record in before.records if record.label < 2]
    assert [(one.path.name, one.label, one.split) for one in found.records] == [
        (one.path.name, one.label, one.split) for one in kept
    ]
    for record, near in zip(found.records, kept, strict=True):
        x0, y0, x1, y1 = record.box
        assert 0.004 < (x1 - x0) * (y1 - y0) / 192**2 < 0.021
        assert len(record.parts) == len(near.parts) == 6
        for part, other in zip(record.parts, near.parts, strict=True):  # as far across the box as before
            share = (other.x - near.box[0]) / (near.box[2] - near.box[0])
            assert (part.x - x0) / (x1 - x0) == pytest.approx(share, abs=0.01)
            share = (other.y - near.box[1]) / (near.box[3] - near.box[1])
            assert (part.y - y0) / (y1 - y0) == pytest.approx(share, abs=0.01)
        same = (tmp_path / "again" / record.path.relative_to(tmp_path / "one")).read_bytes()
        assert record.path.read_bytes() == same
    assert any(
        record.path.read_bytes()
        != (tmp_path / "other" / record.path.relative_to(tmp_path / "one")).read_bytes()
        for record in found.records
    )


def test_a_set_without_parts(birds, tmp_path):
    shutil.copytree(birds, tmp_path / "birds")
    shutil.rmtree(tmp_path / "birds" / "parts")
    far.make(tmp_path / "birds", tmp_path / "far", num_classes=1, side=192, seed=0)
    assert len(read_cub(tmp_path / "far").records) == 6

import json

import pytest
import torch

from ramstrans.bench import models
from ramstrans.bench.flops import macs_of
from ramstrans.bench.models import Entrant, contestant, measure_models, models_table, run_models
from ramstrans.bench.timing import Spread
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.rams import RamsTrans
from tests.bench.builders import TINY

CPU = torch.device("cpu")


def entrant(top1=None, **fields):
    config = ModelConfig("vit_tiny_patch16_224", 5, 32, backbone_options=TINY, **fields)
    return Entrant(config, (48, 56), top1)


ENTRANTS = {"plain": entrant(71.25, num_scales=1), "two": entrant(), "full": entrant(zoom_source="full")}


def test_times_by_hand(monkeypatch):
    """A batch of 4 takes the plain one 2, 4 and 6 s, and the others twice and thrice that, less 1 s."""
    seconds = {"plain": [2.0, 4.0, 6.0], "two": [4.0, 8.0, 12.0], "full": [5.0, 11.0, 17.0]}
    monkeypatch.setattr(models, "interleave", lambda *_args, **_options: seconds)
    plain, two, full = measure_models(ENTRANTS, CPU, 4, "fp32", 3)
    assert plain.seconds == Spread(1.0, 0.75, 1.25)
    assert plain.ratio == Spread(1, 1, 1)
    assert two.ratio == Spread(2, 2, 2)
    assert full.ratio.median == 2.75
    assert [result.name for result in (plain, two, full)] == list(ENTRANTS)


def test_work_is_of_all_looks():
    plain, two, full = measure_models(ENTRANTS, CPU, 2, "fp32", 1)
    assert plain.macs == macs_of(ENTRANTS["plain"].config).plain
    assert two.macs == macs_of(ENTRANTS["two"].config).ours > 2 * plain.macs
    assert full.macs == two.macs


@pytest.mark.parametrize(("name", "crop"), [("plain", None), ("two", None), ("full", (48, 56))])
def test_regions_are_cut_from_the_crop_where_the_model_does(name, crop, monkeypatch):
    seen, forward = [], RamsTrans.forward

    def noted(model, images, high_res=None, **options):
        seen.append((images.shape, high_res if high_res is None else tuple(high_res.shape[2:]), options))
        return forward(model, images, high_res, **options)

    monkeypatch.setattr(RamsTrans, "forward", noted)
    taken = contestant(ENTRANTS[name], CPU, 3, "bf16")
    output = taken.run()
    assert seen == [((3, 3, 32, 32), crop, {"last_region": False})]
    assert taken.num_images == 3
    assert output.scales[-1].boxes is None


def test_file_and_table(tmp_path):
    told = []
    results = run_models(
        ENTRANTS, tmp_path, CPU, batch_size=2, num_rounds=2, command="x", progress=lambda *a: told.append(a)
    )
    assert told[-1][:2] == (9, 9)
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["options"] == {"batch_size": 2, "precision": "fp32", "repeats": 2}
    assert [model["name"] for model in written["models"]] == list(ENTRANTS)
    assert written["models"][0]["top1"] == 71.25
    assert written["models"][1]["gflops"] == pytest.approx(2 * results[1].macs / 1e9)
    table = models_table(results)
    columns = {str(column.header): list(column.cells) for column in table.columns}
    assert columns["model"] == list(ENTRANTS)
    assert columns["looks"] == ["32", "32 32", "32 32"]
    assert columns["top-1, %"] == ["71.2", "", ""]
    assert columns["ratio"][0] == "1.000"

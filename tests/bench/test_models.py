import pytest
import torch

from ramstrans.bench import models
from ramstrans.bench.flops import macs_of
from ramstrans.bench.models import ModelSpec, inference, measure_models, models_table
from ramstrans.bench.timing import Quartiles
from ramstrans.models.config import ModelConfig
from ramstrans.models.methods.rams import RamsTrans
from tests.bench.builders import TINY

CPU = torch.device("cpu")


def spec(top1=None, **fields):
    config = ModelConfig("vit_tiny_patch16_224", 5, 32, backbone_options=TINY, **fields)
    return ModelSpec(config, (48, 56), top1)


SPECS = {"plain": spec(71.25, num_scales=1), "two": spec(), "full": spec(zoom_source="full")}


@pytest.fixture
def results(monkeypatch):
    """A batch of 4 takes the plain model 2, 4 and 6 s, the second twice that, the third thrice less 1 s."""
    seconds = {"plain": [2.0, 4.0, 6.0], "two": [4.0, 8.0, 12.0], "full": [5.0, 11.0, 17.0]}
    monkeypatch.setattr(models, "interleave", lambda *_args, **_options: seconds)
    return measure_models(SPECS, CPU, batch_size=4, num_rounds=3)


def test_times_and_work_by_hand(results):
    plain, two, full = results
    assert plain.seconds == Quartiles(1.0, 0.75, 1.25)
    assert plain.ratio == Quartiles(1, 1, 1)
    assert two.ratio == Quartiles(2, 2, 2)
    assert full.ratio.median == 2.75
    assert two.macs == full.macs == macs_of(SPECS["two"].config) > 2 * plain.macs


def test_all_models_are_timed():
    results = measure_models(SPECS, CPU, batch_size=2, num_rounds=1)
    assert [result.name for result in results] == list(SPECS)
    assert results[1].to_json()["gflops"] == pytest.approx(2 * results[1].macs / 1e9)
    assert results[0].to_json()["top1"] == 71.25


@pytest.mark.parametrize(("name", "crop"), [("plain", None), ("two", None), ("full", (48, 56))])
def test_regions_are_cut_from_the_crop_if_the_model_does_so(name, crop, monkeypatch):
    seen, forward = [], RamsTrans.forward

    def recorded(model, images, high_res=None, **options):
        shape = high_res if high_res is None else tuple(high_res.shape[2:])
        seen.append((images.shape, shape, options["last_region"]))
        return forward(model, images, high_res, **options)

    monkeypatch.setattr(RamsTrans, "forward", recorded)
    candidate = inference(SPECS[name], CPU, 3, "bf16")
    output = candidate.run()
    assert seen == [((3, 3, 32, 32), crop, False)]
    assert candidate.num_images == 3
    assert output.scales[-1].boxes is None


def test_the_table(results):
    table = models_table(results)
    columns = {str(column.header): list(column.cells) for column in table.columns}
    assert columns["model"] == list(SPECS)
    assert columns["looks"] == ["32", "32 32", "32 32"]
    assert columns["top-1, %"] == ["71.2", "", ""]
    assert columns["ratio"] == ["1.000", "2.000", "2.750"]

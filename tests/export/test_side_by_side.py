"""A run and its exports on the same photographs."""

import json
import shutil

import pytest
import torch

from ramstrans.data.records import ImageSet
from ramstrans.errors import UsageError
from ramstrans.export import side_by_side as module
from ramstrans.export.side_by_side import exports_table, measure_exports
from tests.inference.builders import make_folder

pytestmark = pytest.mark.slow  # they need an exported graph
CPU = torch.device("cpu")


@pytest.fixture
def run_images(exported, labelled, monkeypatch):
    """The labelled photographs as the run's own test images."""
    records = tuple(record._replace(split="test") for record in labelled)
    images = ImageSet(exported.predictor.class_names, records)
    monkeypatch.setattr(module, "own_images", lambda *_: images)
    return images


def test_several_labels_have_no_top1(tmp_path):
    several = make_folder(tmp_path / "run", multi_label=True)
    with pytest.raises(UsageError, match=r"compared by top-1, and images of .*run may have several labels"):
        measure_exports([str(several), str(tmp_path / "out")], CPU)


@pytest.mark.usefixtures("run_images")
def test_an_export_answers_as_its_run_does(exported):
    names = [str(exported.saved), str(exported.folder)]
    run, export = measure_exports(names, CPU, batch_size=3, num_images=7, num_rounds=2)
    assert (run.engine, export.engine, export.precision) == ("PyTorch", "onnx", "fp32")
    assert (run.num_images, export.num_images) == (7, 7)
    assert run.top1 == export.top1 > 80  # the labels are the model's own answers, but for the resize
    assert (export.top1_equal, export.boxes_equal) == (1.0, 1.0)
    assert run.ratio == (1.0, 1.0, 1.0)
    assert export.seconds.median > 0
    json.dumps([run.to_json(), export.to_json()])
    assert exports_table([run, export]).row_count == 2


@pytest.mark.usefixtures("run_images")
def test_what_cannot_be_compared_is_refused(exported, tmp_path):
    with pytest.raises(UsageError, match="is an export; name its run folder first"):
        measure_exports([str(exported.folder)], CPU)
    other = shutil.copytree(exported.folder, tmp_path / "other")
    (other / "labels.json").write_text('["a", "b"]')
    with pytest.raises(UsageError, match="other has other classes"):
        measure_exports([str(exported.saved), str(other)], CPU)
    size = shutil.copytree(exported.folder, tmp_path / "size")
    values = json.loads((size / "preprocessing.json").read_text())
    (size / "preprocessing.json").write_text(json.dumps(values | {"crop": [41, 29]}))
    with pytest.raises(UsageError, match="pixels of another size"):
        measure_exports([str(exported.saved), str(size)], CPU)

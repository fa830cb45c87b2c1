import json

import torch

from ramstrans.bench.report import write_json


def test_the_file_has_the_machine_and_what_was_measured(tmp_path):
    path = write_json(tmp_path / "new", torch.device("cpu"), {"models": [{"name": "a"}]})
    written = json.loads(path.read_text())
    machine = written["machine"]
    assert (machine["device"], machine["gpu"]) == ("cpu", None)
    assert "fp32" in machine["kernels"]["attention on cpu"]
    assert machine["versions"]["torch"] == torch.__version__.split("+")[0]
    assert {"ramstrans", "timm", "torchvision"} <= set(machine["versions"])
    assert written["models"] == [{"name": "a"}]

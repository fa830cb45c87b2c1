import json

import torch

from ramstrans.bench import machine
from ramstrans.bench.machine import cpu_name, describe_machine


def test_the_machine_is_described_in_plain_values():
    described = json.loads(json.dumps(describe_machine(torch.device("cpu"))))
    assert (described["device"], described["gpu"]) == ("cpu", None)
    assert described["cores"] >= 1
    assert "fp32" in described["attention_kernels"]["cpu"]
    assert {"ramstrans", "torch", "timm", "torchvision"} <= set(described["versions"])


def test_the_cpu_has_a_name_where_the_system_does_not_say(monkeypatch):
    def refuse(*_args, **_options):
        raise FileNotFoundError

    monkeypatch.setattr(machine.Path, "read_text", refuse)
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    assert cpu_name() == "unknown"

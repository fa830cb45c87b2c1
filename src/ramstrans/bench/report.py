"""bench.json: the measurements, and the machine that they were made on."""

import json
import os
import platform
from datetime import datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ramstrans.doctor import check_attention
from ramstrans.evaluation.report.build import versions
from ramstrans.files import write_file

FORMAT_VERSION = 1
RUNTIMES = ("onnxruntime", "openvino", "nncf")
"""Of exported models; optional."""


def write_json(output: Path, device: torch.device, measured: dict[str, Any]) -> Path:
    """Write bench.json into a folder: the machine, and the measurements."""
    values = {"format_version": FORMAT_VERSION, "machine": describe_machine(device), **measured}
    write_file(output / "bench.json", (json.dumps(values, indent=2, default=str) + "\n").encode())
    return output / "bench.json"


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Describe date, processor, device, threads, versions and attention kernels, as plain values."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "kernels": {check.name: check.value for check in check_attention()},
        "versions": versions()
        | {package: metadata.version(package) for package in RUNTIMES if find_spec(package)},
    }


def cpu_name() -> str:
    """Return the processor's name; `unknown` if the system does not give it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")


def format_ratio(ratio: float) -> str:
    """Format a ratio with its significant digits.

    >>> format_ratio(1.0804), format_ratio(0.000532)
    ('1.080', '0.00053')
    """
    return f"{ratio:.3f}" if ratio >= 0.1 else f"{ratio:.2g}"

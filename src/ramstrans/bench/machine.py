"""On what was measured: a benchmark says nothing without it."""

import os
import platform
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ramstrans import __version__
from ramstrans.doctor import check_attention

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "pillow")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, device, threads, versions, attention kernels and date, as plain values."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "attention_kernels": {check.name.split()[-1]: check.value for check in check_attention()},
        "versions": {"python": platform.python_version(), "ramstrans": __version__}
        | {package: metadata.version(package) for package in PACKAGES},
    }


def cpu_name() -> str:
    """What the processor calls itself; `unknown` where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")

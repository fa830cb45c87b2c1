"""What this machine has and lacks for ramstrans: versions, devices, attention kernels, folders.

What ramstrans requires is imported only when it is checked, so that a missing package can be reported.
"""

import importlib
import os
import platform
import shutil
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from rich.table import Table

GIB = 2**30
MIN_FREE = 2 * GIB
"""Bytes of free disk that downloads and runs are likely to need: ViT-B weights and a run."""

COLORS = {"ok": "green", "warning": "yellow", "missing": "red"}


class Check(NamedTuple):
    """One row of the report.

    Attributes:
        name: What was checked.
        value: What was found.
        status: `ok`; `warning`: ramstrans works, but not as well as it could; `missing`: it does not work.
        hint: What to do; empty if there is nothing to do.
    """

    name: str
    value: str
    status: Literal["ok", "warning", "missing"] = "ok"
    hint: str = ""


def diagnose() -> list[Check]:
    """Check everything; takes a few seconds and no network.

    >>> all(check.hint for check in diagnose() if check.status != "ok")
    True
    """
    with warnings.catch_warnings():  # torch warns about each kernel that is not available
        warnings.simplefilter("ignore")
        checks = [*check_packages(), *check_imports()]
        if not any(check.name == "import torch" for check in checks):
            checks += [check_cpu(), *check_accelerators(), *check_attention()]
    return [*checks, *check_folders()]


def render(checks: Iterable[Check]) -> "Table":
    """The checks as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", "found", "status", "what to do", box=None, pad_edge=False)
    for name, value, status, hint in checks:
        table.add_row(Text(name), Text(value), Text(status, style=COLORS[status]), Text(hint))
    return table


def check_packages() -> Iterator[Check]:
    """Versions of Python, ramstrans and its requirements against the declared ranges, and its extras."""
    from packaging.requirements import Requirement

    if version_of("ramstrans") is None:
        yield Check("ramstrans", "not installed", "missing", "pip install . in its source folder")
        return
    declared = metadata.metadata("ramstrans")
    yield check_version(Requirement(f"python{declared['Requires-Python']}"), platform.python_version())
    yield Check("ramstrans", declared["Version"])
    requirements = [Requirement(line) for line in metadata.requires("ramstrans") or []]
    for one in requirements:
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            yield check_version(one, version_of(one.name))
    for extra in sorted({*declared.get_all("Provides-Extra", [])} - {"dev", "test"}):
        wanted = [one.name for one in requirements if one.marker and one.marker.evaluate({"extra": extra})]
        absent = [name for name in wanted if version_of(name) is None]
        hint = f"pip install 'ramstrans[{extra}]' if you want it" if absent else ""
        yield Check(f"extra {extra}", f"without {', '.join(absent)}" if absent else "installed", hint=hint)


def check_version(requirement: "Requirement", version: str | None) -> Check:
    """One requirement; a version outside of its range is a warning, but Python's is an error."""
    name, wanted = requirement.name, f"{requirement.name}{requirement.specifier}"
    if version is None:
        return Check(name, "not installed", "missing", f"pip install '{wanted}'")
    if requirement.specifier.contains(version, prereleases=True):
        return Check(name, version)
    if name == "python":
        return Check(name, version, "missing", f"install {wanted}")
    return Check(name, version, "warning", f"not a tested version; pip install '{wanted}'")


def version_of(package: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_imports() -> Iterator[Check]:
    """A row for each compiled package that is installed but fails to import: their releases go together."""
    for name in ("torch", "torchvision", "timm"):
        try:
            importlib.import_module(name)
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            hint = "install torch, torchvision and timm again, together"
            yield Check(f"import {name}", str(error).partition("\n")[0], "missing", hint)


def check_cpu() -> Check:
    """Threads and vector units of the CPU."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text(encoding="utf-8").split()) if cpuinfo.is_file() else set()
    units = [unit for unit in ("amx_bf16", "avx512_bf16", "bf16") if unit in words]
    missing = "no units for bf16: --training.precision fp32 is faster" if words else "units for bf16 unknown"
    bf16 = f"bf16 by {' and '.join(units)}" if units else missing
    capability = torch.backends.cpu.get_cpu_capability()
    return Check("cpu", f"{torch.get_num_threads()} threads, {capability}, {bf16}")


def check_accelerators() -> Iterator[Check]:
    """CUDA devices with their memory, and Apple's GPU."""
    import torch

    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        try:
            free, total = torch.cuda.mem_get_info(index)
        except RuntimeError as error:
            yield Check(f"cuda:{index}", name, "warning", f"cannot be used now: {str(error).splitlines()[0]}")
        else:
            yield Check(f"cuda:{index}", f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    if not torch.cuda.is_available():
        has_driver = shutil.which("nvidia-smi") is not None
        hint = "there is a driver: install a build of torch for its CUDA version (see nvidia-smi)"
        unusable = Check("cuda", f"not usable by torch {torch.__version__}", "warning", hint)
        yield unusable if has_driver else Check("cuda", "none")
    if platform.system() == "Darwin":
        yield Check("mps", "available" if torch.backends.mps.is_available() else "none")


def check_attention() -> Iterator[Check]:
    """Kernels of scaled dot-product attention that run here, found by running each, and the rollout's."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from ramstrans.models.saliency.rollout import choose_implementation

    def runs(device: str, backend: SDPBackend, dtype: torch.dtype) -> bool:
        query = torch.zeros(1, 2, 8, 64, device=device, dtype=dtype)  # an image, 2 heads, 8 tokens
        try:
            with sdpa_kernel(backend):
                torch.nn.functional.scaled_dot_product_attention(query, query, query)
        except RuntimeError:
            return False
        return True

    kernels = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "mem_efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "math": SDPBackend.MATH,
    }
    precisions = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        found = {
            kernel: [name for name, dtype in precisions.items() if runs(device, backend, dtype)]
            for kernel, backend in kernels.items()
        }
        value = ", ".join(f"{kernel} ({' '.join(names)})" for kernel, names in found.items() if names)
        name, is_fused = f"attention on {device}", any(found[kernel] for kernel in found if kernel != "math")
        hint = "no fused kernel: attention is slow and takes much memory; install a newer torch"
        yield Check(name, value) if is_fused else Check(name, value or "none", "warning", hint)
        eager, compiled = (choose_implementation(torch.device(device), compiled=on) for on in (False, True))
        yield Check(f"rollout on {device}", f"{eager}, in a compiled model {compiled}")


def check_folders() -> Iterator[Check]:
    """Whether the caches of weights and the current folder can be written, and have space."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    hub = Path(os.environ.get("HF_HUB_CACHE", Path(os.environ.get("HF_HOME", home / "huggingface"), "hub")))
    yield check_folder("cache of timm's weights", hub, "set HF_HOME to a folder that can be written")
    yield check_folder("current folder", Path.cwd(), "give --output, a folder that can be written")


def check_folder(name: str, folder: Path, remedy: str) -> Check:
    """Whether a folder, or the nearest one above it that exists, can be written and has space."""
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(nearest).free
    value = f"{folder}, {free / GIB:.1f} GiB free"
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        return Check(name, value, "warning", f"cannot be written; {remedy}")
    if free < MIN_FREE:
        return Check(name, value, "warning", f"free some space: {MIN_FREE / GIB:.0f} GiB or more")
    return Check(name, value)

"""Report what this machine offers ramstrans: versions, devices and attention kernels.

Requirements are imported only when they are checked, so that a missing package can be reported.
"""

import importlib
import platform
import shutil
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table

GIB = 2**30
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
    return checks


def render(checks: Iterable[Check]) -> "Table":
    """Format the checks as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", "found", "status", "what to do", box=None, pad_edge=False)
    for name, value, status, hint in checks:
        table.add_row(Text(name), Text(value), Text(status, style=COLORS[status]), Text(hint))
    return table


def check_packages() -> Iterator[Check]:
    """Compare the installed packages with the requirements of ramstrans."""
    from packaging.requirements import Requirement

    yield Check("python", platform.python_version())
    if version_of("ramstrans") is None:
        yield Check("ramstrans", "not installed", "missing", "pip install . in its source folder")
        return
    yield Check("ramstrans", metadata.version("ramstrans"))
    for requirement in map(Requirement, metadata.requires("ramstrans") or []):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, version = requirement.name, version_of(requirement.name)
        remedy = f"pip install '{name}{requirement.specifier}'"
        if version is None:
            yield Check(name, "not installed", "missing", remedy)
        elif requirement.specifier.contains(version, prereleases=True):
            yield Check(name, version)
        else:
            yield Check(name, version, "warning", f"not a tested version; {remedy}")


def version_of(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_imports() -> Iterator[Check]:
    """Report each compiled package that is installed but fails to import: their releases belong together."""
    for name in ("torch", "torchvision", "timm"):
        try:
            importlib.import_module(name)
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            hint = "install torch, torchvision and timm again, together"
            yield Check(f"import {name}", str(error).partition("\n")[0], "missing", hint)


def check_cpu() -> Check:
    """Report threads and vector units of the CPU."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    words = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.is_file() else []
    units = " and ".join(unit for unit in ("amx_bf16", "avx512_bf16", "bf16") if unit in words)
    bf16 = f"bf16 by {units}" if units else "no known units for bf16: --training.precision fp32 is faster"
    capability = torch.backends.cpu.get_cpu_capability()
    return Check("cpu", f"{torch.get_num_threads()} threads, {capability}, {bf16}")


def check_accelerators() -> Iterator[Check]:
    """Report CUDA devices with their memory, and Apple's GPU."""
    import torch

    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        try:
            free, total = torch.cuda.mem_get_info(index)
            yield Check(f"cuda:{index}", f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")
        except RuntimeError as error:
            yield Check(f"cuda:{index}", name, "warning", f"cannot be used now: {str(error).splitlines()[0]}")
    if not torch.cuda.is_available():
        has_driver = shutil.which("nvidia-smi") is not None
        hint = "there is a driver: install a build of torch for its CUDA version (see nvidia-smi)"
        unusable = Check("cuda", f"not usable by torch {torch.__version__}", "warning", hint)
        yield unusable if has_driver else Check("cuda", "none")
    if torch.backends.mps.is_available():
        yield Check("mps", "available")


def check_attention() -> Iterator[Check]:
    """Report the kernels of scaled dot-product attention that run here, and how the rollout is computed."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from ramstrans.distributed import DTYPES
    from ramstrans.models.saliency.rollout import choose_implementation

    kernels = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "mem_efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "math": SDPBackend.MATH,
    }

    def runs(kernel: str, device: str, precision: str) -> bool:
        query = torch.zeros(1, 2, 8, 64, device=device, dtype=DTYPES[precision])  # 2 heads, 8 tokens
        try:
            with sdpa_kernel(kernels[kernel]):
                torch.nn.functional.scaled_dot_product_attention(query, query, query)
        except RuntimeError:
            return False
        return True

    hint = "no fused kernel: attention is slow and takes much memory; install a newer torch"
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        found = {name: " ".join(dtype for dtype in DTYPES if runs(name, device, dtype)) for name in kernels}
        value = ", ".join(f"{name} ({dtypes})" for name, dtypes in found.items() if dtypes) or "none"
        is_fused = any(found[name] for name in kernels if name != "math")
        name = f"attention on {device}"
        yield Check(name, value) if is_fused else Check(name, value, "warning", hint)
        eager, compiled = (
            choose_implementation(torch.device(device), compiled=flag) for flag in (False, True)
        )
        yield Check(f"rollout on {device}", f"{eager}, in a compiled model {compiled}")

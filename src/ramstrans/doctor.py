"""What this machine has and lacks for ramstrans: versions, devices, attention kernels, folders.

Imports what ramstrans requires only as it goes, so that it can say what is missing.
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
    import torch
    from packaging.requirements import Requirement
    from rich.table import Table
    from torch.nn.attention import SDPBackend

GIB = 2**30
LEAST_FREE = 2 * GIB
"""Free disk, in bytes, below which downloads and runs are likely to fail: ViT-B weights and a run."""

COMPILED = ("torch", "torchvision", "timm")
"""Packages that may be installed and still fail to import, as their releases have to go together."""

EXTRAS_OF_DEVELOPERS = {"dev", "test"}
COLORS = {"ok": "green", "warning": "yellow", "missing": "red"}


class Check(NamedTuple):
    """One thing looked at.

    Attributes:
        name: What.
        value: What was found.
        status: `ok`; `warning`: ramstrans works, but not as well as it could; `missing`: it does not work.
        hint: What to do; empty if nothing is to be done.
    """

    name: str
    value: str
    status: Literal["ok", "warning", "missing"] = "ok"
    hint: str = ""


def diagnose() -> list[Check]:
    """Look at everything; takes a few seconds and no network.

    >>> all(check.hint for check in diagnose() if check.status != "ok")
    True
    """
    checks = [check_python(), *check_packages()]
    with warnings.catch_warnings():  # torch warns about each kernel that is not to be had
        warnings.simplefilter("ignore")
        checks += check_imports()
        if all(check.status == "ok" for check in checks if check.name == "import torch"):
            checks += [check_cpu(), *check_accelerators(), *check_attention(), *check_rollout()]
    return [*checks, *check_folders()]


def render(checks: Iterable[Check]) -> "Table":
    """The checks as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", "found", "status", "what to do", box=None, pad_edge=False)
    for check in checks:
        table.add_row(
            Text(check.name),
            Text(check.value),
            Text(check.status, style=COLORS[check.status]),
            Text(check.hint),
        )
    return table


def check_python() -> Check:
    """The interpreter, against the range that ramstrans declares."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    try:
        declared = metadata.metadata("ramstrans")
    except metadata.PackageNotFoundError:
        return Check("python", version)
    supported = str(declared.json.get("requires_python", ""))
    if SpecifierSet(supported).contains(version, prereleases=True):
        return Check("python", version)
    return Check("python", version, "missing", f"install Python {supported}")


def check_packages() -> Iterator[Check]:
    """The version of ramstrans and of each of its requirements, against its declared range."""
    from packaging.requirements import Requirement

    try:
        yield Check("ramstrans", metadata.version("ramstrans"))
        requirements = [Requirement(line) for line in metadata.requires("ramstrans") or []]
        extras = metadata.metadata("ramstrans").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        yield Check("ramstrans", "not installed", "missing", "pip install . in its source folder")
        return
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _check_requirement(requirement)
    for extra in sorted(set(extras) - EXTRAS_OF_DEVELOPERS):
        wanted = [entry for entry in requirements if entry.marker and entry.marker.evaluate({"extra": extra})]
        absent = [entry.name for entry in wanted if _installed(entry.name) is None]
        hint = f"pip install 'ramstrans[{extra}]' if you want it" if absent else ""
        yield Check(f"extra {extra}", f"without {', '.join(absent)}" if absent else "installed", "ok", hint)


def _check_requirement(requirement: "Requirement") -> Check:
    """One required package; one of another version than tested is a warning."""
    version = _installed(requirement.name)
    wanted = f"pip install '{requirement.name}{requirement.specifier}'"
    if version is None:
        return Check(requirement.name, "not installed", "missing", wanted)
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(requirement.name, version, "warning", f"not a tested version; {wanted}")
    return Check(requirement.name, version)


def _installed(name: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_imports() -> Iterator[Check]:
    """Whether the compiled packages load at all; those that do are passed over in silence."""
    for name in COMPILED:
        try:
            importlib.import_module(name)
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            hint = "install torch, torchvision and timm anew, together"
            yield Check(f"import {name}", _first_line(error), "missing", hint)


def _first_line(error: BaseException) -> str:
    """First line of an error's message, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def check_cpu() -> Check:
    """Threads of the CPU, and its units for bf16."""
    import torch

    flags = _cpu_flags()
    units = [unit for unit in ("amx_bf16", "avx512_bf16", "bf16") if unit in flags]
    missing = "no units for bf16: --training.precision fp32 is faster" if flags else "units for bf16 unknown"
    bf16 = f"bf16 by {' and '.join(units)}" if units else missing
    return Check(
        "cpu", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, {bf16}"
    )


def _cpu_flags() -> set[str]:
    """What the CPU can do, in Linux's words; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    found = (line.split(":", 1)[1] for line in lines if line.lower().startswith(("flags", "features")))
    return set(next(found, "").split())


def check_accelerators() -> Iterator[Check]:
    """CUDA devices with their memory, and Apple's GPU."""
    import torch

    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        try:
            free, total = torch.cuda.mem_get_info(index)
        except RuntimeError as error:
            yield Check(f"cuda:{index}", name, "warning", f"cannot be used now: {_first_line(error)}")
        else:
            yield Check(f"cuda:{index}", f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi"):
            hint = "a driver is there: install a build of torch for its CUDA version (see nvidia-smi)"
            yield Check("cuda", f"not usable by torch {torch.__version__}", "warning", hint)
        else:
            yield Check("cuda", "none")
    if platform.system() == "Darwin":
        yield Check("mps", "available" if torch.backends.mps.is_available() else "none")


def check_attention() -> Iterator[Check]:
    """Which kernels of scaled dot-product attention run here, found by running each."""
    import torch
    from torch.nn.attention import SDPBackend

    backends = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "mem_efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "math": SDPBackend.MATH,
    }
    enabled = {name for name in backends if getattr(torch.backends.cuda, f"{name}_sdp_enabled")()}
    precisions = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        kernels = {
            kernel: [name for name, dtype in precisions.items() if _attention_runs(device, backend, dtype)]
            for kernel, backend in backends.items()
            if kernel in enabled
        }
        value = ", ".join(f"{kernel} ({' '.join(works)})" for kernel, works in kernels.items() if works)
        if any(works for kernel, works in kernels.items() if kernel != "math"):
            yield Check(f"attention on {device}", value)
        else:
            hint = "no fused kernel: attention is slow and takes much memory; install a newer torch"
            yield Check(f"attention on {device}", value or "none", "warning", hint)


def _attention_runs(device: str, backend: "SDPBackend", dtype: "torch.dtype") -> bool:
    """Whether one kernel can do a tiny attention: 1 image, 2 heads, 8 tokens of width 64."""
    import torch
    from torch.nn.attention import sdpa_kernel

    query = torch.zeros(1, 2, 8, 64, device=device, dtype=dtype)
    try:
        with sdpa_kernel(backend):
            torch.nn.functional.scaled_dot_product_attention(query, query, query)
    except RuntimeError:
        return False
    return True


def check_rollout() -> Iterator[Check]:
    """How the attention rollout runs on each device, see `ramstrans.models.saliency.rollout`."""
    import torch

    from ramstrans.models.saliency.rollout import choose_implementation

    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        eager, compiled = (
            choose_implementation(torch.device(device), compiled=flag) for flag in (False, True)
        )
        yield Check(f"rollout on {device}", f"{eager}, in a compiled model {compiled}")


def check_folders() -> Iterator[Check]:
    """Whether the caches of weights and this folder can be written, and have space."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    hub = Path(os.environ.get("HF_HUB_CACHE", Path(os.environ.get("HF_HOME", home / "huggingface")) / "hub"))
    torch_hub = Path(os.environ.get("TORCH_HOME", home / "torch")) / "hub"
    yield check_folder("cache of timm's weights", hub, "set HF_HOME to a folder that can be written")
    yield check_folder("cache of torch", torch_hub, "set TORCH_HOME to a folder that can be written")
    yield check_folder("current folder", Path.cwd(), "give --output, a folder that can be written")


def check_folder(name: str, folder: Path, remedy: str) -> Check:
    """Whether a folder, or the nearest one above it that exists, can be written and has space.

    Args:
        name: What the folder is for.
        folder: Need not exist.
        remedy: What to do where it cannot be written.
    """
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(nearest).free
    value = f"{folder}, {free / GIB:.1f} GiB free"
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        return Check(name, value, "warning", f"cannot be written; {remedy}")
    if free < LEAST_FREE:
        return Check(name, value, "warning", f"free some space: {LEAST_FREE / GIB:.0f} GiB or more")
    return Check(name, value)

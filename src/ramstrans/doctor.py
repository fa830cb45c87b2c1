"""Report what this machine offers ramstrans: versions, devices and attention kernels; and what a backbone is.

Requirements are imported only when they are checked, so that a missing package can be reported.
"""

import importlib
import platform
import shutil
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from itertools import chain
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table

    from ramstrans.models.config import ModelConfig

GIB = 2**30

SIZES = (224, 256, 384, 448, 512)
"""Sides in pixels that a backbone is tried with, besides its own."""

COLORS = {"ok": "green", "optional": "", "warning": "yellow", "missing": "red"}

OF_DEVELOPERS = ("test", "docs", "dev")
"""Extras that no command needs."""


class Check(NamedTuple):
    """One row of the report.

    Attributes:
        name: What was checked.
        value: What was found.
        status: `ok`; `optional`: some command needs it; `warning`: ramstrans works, but not as well as it
            could; `missing`: it does not work.
        hint: What to do; empty if there is nothing to do.
    """

    name: str
    value: str
    status: Literal["ok", "optional", "warning", "missing"] = "ok"
    hint: str = ""


def diagnose() -> list[Check]:
    """Check everything; takes a few seconds and no network.

    >>> all(check.hint for check in diagnose() if check.status != "ok")
    True
    """
    with warnings.catch_warnings():  # torch warns about each kernel that is not available
        warnings.simplefilter("ignore")
        checks = [*check_packages(), *check_extras(), *check_imports()]
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


def check_extras() -> Iterator[Check]:
    """Report which extras of ramstrans are installed."""
    from packaging.requirements import Requirement

    if version_of("ramstrans") is None:
        return
    requirements = [Requirement(line) for line in metadata.requires("ramstrans") or []]
    marked = [(one, one.marker) for one in requirements if one.marker is not None]

    def needed(extra: str) -> Iterator[Requirement]:
        for one, marker in marked:
            if marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
                yield from [one] if one.name != "ramstrans" else chain.from_iterable(map(needed, one.extras))

    for extra in metadata.metadata("ramstrans").get_all("Provides-Extra") or []:
        if extra in OF_DEVELOPERS:
            continue
        found = [(one, version_of(one.name)) for one in needed(extra)]
        lacking = [
            one.name
            for one, version in found
            if version is None or not one.specifier.contains(version, prereleases=True)
        ]
        remedy = f"pip install 'ramstrans[{extra}]'"
        if lacking:
            yield Check(f"extra {extra}", f"not installed: {', '.join(lacking)}", "optional", remedy)
        else:
            yield Check(f"extra {extra}", ", ".join(f"{one.name} {version}" for one, version in found))


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

    from ramstrans.distributed import computes_bf16

    units = computes_bf16(torch.device("cpu"))
    bf16 = "units for bf16" if units else "no units for bf16: --training.precision fp32 is faster"
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


def describe_backbone(name: str) -> list[tuple[str, str]]:
    """What a backbone is and can do, as rows of two cells; takes a few seconds, no weights and no network.

    Raises:
        ConfigError: It cannot work; the message says why.
    """
    import timm

    from ramstrans.models.backbones import check_name, current_name
    from ramstrans.models.config import ModelConfig

    name = current_name(name)
    check_name(name)
    published = timm.get_pretrained_cfg(name)
    height, width = (224, 224) if published is None else published.input_size[1:]
    config = ModelConfig(name, num_classes=2, image_size=(height, width))
    tags = {
        full: timm.get_pretrained_cfg(full) for full in timm.list_pretrained(f"{name.partition('.')[0]}.*")
    }
    trained = [f"{tag.tag} {'x'.join(map(str, tag.input_size[1:]))}" for tag in tags.values() if tag.tag]
    weights = "none at timm: --model.weights FILE, or null for random ones"
    if published is not None and timm.is_model_pretrained(name):
        weights = f"{published.tag or 'without a tag'}, licence {published.license or 'unknown'}"
    return [
        ("backbone", name),
        *_anatomy_rows(config),
        ("other sizes", _sizes(config)),
        ("default weights", weights),
        ("weights and sizes", ", ".join(trained) or "none"),
    ]


def _anatomy_rows(config: "ModelConfig") -> list[tuple[str, str]]:
    """Parameters, normalisation, what the head reads, and saliencies, for two scales."""
    import torch

    from ramstrans.models.backbones import build_backbone
    from ramstrans.models.encoder import Encoder
    from ramstrans.models.saliency import SALIENCIES, choose_saliency

    size = config.input_size
    with torch.device("meta"):
        network = build_backbone(config)
    millions = sum(weight.numel() for weight in network.parameters()) / 1e6
    encoder = Encoder(network, 2, size=size)
    reasons = {saliency: SALIENCIES[saliency].unfit(encoder, "all") for saliency in SALIENCIES}
    head = sum(weight.numel() for weight in encoder.get_classifier().parameters()) / 1e6
    chosen, reason = choose_saliency(encoder)
    rows, columns = encoder.anatomy.grid
    tokens = "one per scale" if encoder.class_tokens == "joint" else "all scales share everything"
    has_unread = getattr(network, "cls_token", None) is not None and encoder.pooling != "the class token"
    hint = "; --model.global_pool token reads its class token" if has_unread else ""
    return [
        ("class", type(network).__name__),
        ("parameters", f"{millions - head:.1f} M without its head"),
        ("trained at", f"{size[0]}x{size[1]} px: {rows}x{columns} locations"),
        ("mean, std", f"{_numbers(encoder.mean)}; {_numbers(encoder.std)}"),
        ("the head reads", encoder.pooling + hint),
        ("class tokens", tokens),
        ("saliency", f"{chosen}: {reason}"),
        ("it can have", ", ".join(saliency for saliency, why in reasons.items() if why is None)),
        (
            "it cannot have",
            "; ".join(f"{saliency}: {why}" for saliency, why in reasons.items() if why) or "-",
        ),
    ]


def _sizes(config: "ModelConfig") -> str:
    """Which of a few other sizes a backbone takes, and whether scales may differ in size."""
    import dataclasses

    import torch

    from ramstrans.errors import ConfigError
    from ramstrans.models.backbones import build_backbone

    def takes(**sizes: int) -> bool:
        try:
            with torch.device("meta"):
                build_backbone(dataclasses.replace(config, **sizes))  # type: ignore[arg-type]
        except ConfigError:
            return False
        return True

    sides = [side for side in SIZES if (side, side) != config.input_size]
    taken = [side for side in sides if takes(image_size=side)]
    if not taken:
        return f"none of {', '.join(map(str, sides))}"
    differ = "scales may differ in size" if takes(region_size=taken[0]) else "one size for all scales"
    return f"{', '.join(map(str, taken))} of {', '.join(map(str, sides))} px; {differ}"


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)

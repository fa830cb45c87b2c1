import builtins
import importlib
import io
import platform
import shutil
from importlib import metadata

import pytest
import torch
from rich.console import Console

from ramstrans import doctor
from ramstrans.doctor import Check, check_extras, check_packages, describe_backbone, diagnose, render


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Pretends that a ramstrans with these requirements is installed."""

    def install(*requirements):
        folder = tmp_path / "ramstrans-9.7.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.4", "Name: ramstrans", "Version: 9.7"]
        lines += [f"Provides-Extra: {extra}" for extra in ("serve", "more", "whole", "again", "test")]
        lines += [f"Requires-Dist: {requirement}" for requirement in requirements]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install


def by_name(checks):
    return {check.name: check for check in checks}


def test_requirements_are_compared_with_what_is_installed(installed):
    installed(
        "torch>=2.11",
        "pytest[all]<1",
        "no-such-package-at-all>=3",
        "antique; python_version < '3'",
        "no-such-server; extra == 'serve'",
    )
    checks = by_name(check_packages())
    assert list(checks) == ["python", "ramstrans", "torch", "pytest", "no-such-package-at-all"]
    assert checks["ramstrans"] == Check("ramstrans", "9.7")
    assert checks["torch"] == Check("torch", metadata.version("torch"))
    assert checks["pytest"].status == "warning"
    assert "pip install 'pytest<1'" in checks["pytest"].hint
    assert checks["no-such-package-at-all"].status == "missing"
    assert checks["no-such-package-at-all"].hint == "pip install 'no-such-package-at-all>=3'"
    assert checks["python"] == Check("python", platform.python_version())


def test_extras_are_there_or_not(installed):
    pytest_version = metadata.version("pytest")
    installed(
        "torch",
        "nix; extra == 'serve'",
        "pytest>=99; extra == 'serve'",
        "ramstrans[serve]; extra == 'more'",
        "pytest; extra == 'whole'",
        "ramstrans[whole]; extra == 'again'",
        "nix; extra == 'test'",
    )
    assert list(check_extras()) == [
        Check("extra serve", "not installed: nix, pytest", "optional", "pip install 'ramstrans[serve]'"),
        Check("extra more", "not installed: nix, pytest", "optional", "pip install 'ramstrans[more]'"),
        Check("extra whole", f"pytest {pytest_version}"),
        Check("extra again", f"pytest {pytest_version}"),
    ]


def test_ramstrans_that_is_not_installed_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "version_of", lambda _: None)
    assert [check.status for check in check_packages()] == ["ok", "missing"]


def test_this_machine_has_a_cpu_and_attention(installed):
    installed("torch")
    checks = by_name(diagnose())
    assert {"python", "torch", "cpu", "attention on cpu"} <= set(checks)
    assert f"{torch.get_num_threads()} threads" in checks["cpu"].value
    assert "math (fp32 bf16" in checks["attention on cpu"].value
    assert not [check for check in checks.values() if check.status == "missing"]


def test_only_kernels_that_run_are_named(monkeypatch):
    def attend(query, _key, _value):
        if query.dtype is not torch.float32 or not torch.backends.cuda.math_sdp_enabled():
            raise RuntimeError("no available kernel")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    check = next(doctor.check_attention())
    assert check.value == "math (fp32)"
    assert check.status == "warning"
    assert "no fused kernel" in check.hint


@pytest.mark.parametrize("error", [ImportError("no libcudart"), RuntimeError("operator nms does not exist")])
def test_a_package_that_does_not_load_is_missing_and_the_rest_goes_on(monkeypatch, error):
    def broken(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", broken)
    checks = by_name(diagnose())
    assert checks["import torch"].status == "missing"
    assert checks["import torch"].value == str(error)
    assert "cpu" not in checks
    assert "ramstrans" in checks


def test_doctor_starts_without_torch(monkeypatch):
    real = builtins.__import__

    def without_torch(name, *args, **options):
        if name.split(".")[0] == "torch":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    importlib.reload(doctor)
    assert list(doctor.check_packages())


@pytest.mark.parametrize(("driver", "status"), [("/usr/bin/nvidia-smi", "warning"), (None, "ok")])
def test_a_driver_without_a_usable_gpu_is_a_warning(monkeypatch, driver, status):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda _name: driver)
    assert by_name(doctor.check_accelerators())["cuda"].status == status


def test_gpus_are_listed_with_their_memory(monkeypatch):
    def memory(index):
        if index == 1:
            raise RuntimeError("busy\nmore")
        return 3 * doctor.GIB, 7 * doctor.GIB

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU{index}")
    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    checks = by_name(doctor.check_accelerators())
    assert checks["cuda:0"].value == "GPU0, 3.0 of 7.0 GiB free"
    assert checks["cuda:1"].hint == "cannot be used now: busy"


@pytest.mark.parametrize("bf16_units", [True, False], indirect=True)
def test_the_cpus_units_for_bf16(bf16_units):
    assert ("no units for bf16" in doctor.check_cpu().value) is not bf16_units


def test_table_shows_every_check_as_it_is():
    checks = [Check("torch", "2.15 [cpu]", "warning", "pip install 'a[b]'"), Check("python", "3.11")]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(checks))
    text = console.export_text()
    for word in ("torch", "2.15 [cpu]", "warning", "pip install 'a[b]'", "python", "3.11", "ok"):
        assert word in text


def test_the_rollouts_implementation_is_named(monkeypatch):
    assert by_name(diagnose())["rollout on cpu"].value == "tiles, in a compiled model tiles"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "test_vit",  # of timm: 160 px, for tests
            {
                "class": "VisionTransformer",
                "the head reads": "the class token",
                "class tokens": "one per scale",
                "it can have": "rollout, class_attention, cosine",
                "default weights": "r160_in1k, licence apache-2.0",
            },
        ),
        (
            "test_resnet",
            {
                "class": "ResNet",
                "the head reads": "the mean of all locations",
                "class tokens": "all scales share everything",
                "it can have": "cosine, cam",
            },
        ),
    ],
)
def test_a_backbone_in_rows(name, expected):
    rows = dict(describe_backbone(name))
    assert {key: rows[key] for key in expected} == expected
    assert "160x160 px" in rows["trained at"]
    assert rows["saliency"].startswith("rollout: " if name == "test_vit" else "cam: no rollout")
    assert "pool_attention: no query pools its tokens" in rows["it cannot have"]
    assert "224, 256, 384, 448, 512 of 224" in rows["other sizes"]


@pytest.mark.slow
def test_a_large_backbone_is_described_without_its_memory():
    """6 billion parameters, 24 GB: nothing is allocated."""
    rows = dict(describe_backbone("vit_7b_patch16_dinov3"))
    assert float(rows["parameters"].split()[0]) > 6000
    assert rows["saliency"].startswith("rollout: ")

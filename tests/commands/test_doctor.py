"""`ramstrans doctor`, to its exit code."""

import pytest

from ramstrans.cli import main


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warning", 0), ("missing", 1)])
def test_doctor_exits_by_what_is_missing(monkeypatch, capsys, status, code):
    from ramstrans.doctor import Check

    monkeypatch.setattr("ramstrans.doctor.diagnose", lambda: [Check("torch", "2.11", status)])
    assert main(["doctor"]) == code
    assert "torch" in capsys.readouterr().out


def test_doctor_describes_a_backbone(capsys):
    assert main(["doctor", "--backbone", "vit_small_patch16_dinov3"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "trained at 256x256 px: 16x16 locations" in printed
    assert "--model.global_pool token reads its class token" in printed
    assert "saliency rollout: every layer" in printed
    assert "licence dinov3-license" in printed


def test_doctor_says_why_a_backbone_cannot_work(fails):
    assert "did you mean" in fails(2, "doctor", "--backbone", "resnett18")
    assert "two tokens" in fails(2, "doctor", "--backbone", "deit_tiny_distilled_patch16_224")

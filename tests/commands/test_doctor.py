"""`ramstrans doctor`, to its exit code."""

import pytest

from ramstrans.cli import main


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warning", 0), ("missing", 1)])
def test_doctor_exits_by_what_is_missing(monkeypatch, capsys, status, code):
    from ramstrans.doctor import Check

    monkeypatch.setattr("ramstrans.doctor.diagnose", lambda: [Check("torch", "2.11", status)])
    assert main(["doctor"]) == code
    assert "torch" in capsys.readouterr().out

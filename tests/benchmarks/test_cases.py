import pytest
import timm

from benchmarks import cases
from benchmarks.candidates import CANDIDATES
from benchmarks.cases import CASES, choose_cases
from ramstrans.errors import UsageError
from tests.benchmarks.builders import tiny_case


def test_every_case_can_be_built():
    for name, case in CASES.items():
        assert timm.is_model(case.backbone), name
        assert set(case.figure) <= set(CANDIDATES[case.task]), name
        assert "ramstrans" in case.figure, name
        assert set(case.target) <= {"cpu", "cuda"}, name
        assert (case.why_not("cpu") is None) != case.needs_gpu, name
        assert case.why_not("cuda") is None, name


def test_all_cases_or_some_in_the_order_of_the_table(monkeypatch):
    monkeypatch.setattr(cases, "CASES", {name: tiny_case() for name in "abc"})
    assert list(choose_cases(None)) == ["a", "b", "c"]
    assert list(choose_cases(["c", "a"])) == ["a", "c"]
    with pytest.raises(UsageError, match="--cases d: there is no such case; choose from backbones, a, b, c"):
        choose_cases(["a", "d"])


@pytest.mark.parametrize(
    ("at_least", "below", "equal", "above"), [(False, True, True, False), (True, False, True, True)]
)
def test_targets(at_least, below, equal, above):
    case = tiny_case(target={"cpu": 1.5}, at_least=at_least)
    assert [case.met(ratio, "cpu") for ratio in (1.4, 1.5, 1.6)] == [below, equal, above]
    assert case.met(1.0, "cuda") is None


def test_memory_is_not_counted_on_every_device():
    assert tiny_case(measure="memory").why_not("mps") == "memory is not counted on mps"
    assert tiny_case().why_not("mps") is None

import pytest
import timm

from ramstrans.bench import cases
from ramstrans.bench.cases import CASES, choose_cases
from ramstrans.bench.contestants import CONTESTANTS
from ramstrans.errors import UsageError
from tests.bench.builders import tiny_case


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_case_can_be_built(case):
    assert timm.is_model(case.backbone)
    assert set(case.figure) <= set(CONTESTANTS[case.task])
    assert "ours" in case.figure
    assert set(case.reach) <= {"cpu", "cuda"}
    assert case.model_config().num_scales == 2
    assert (case.why_not("cpu") is None) != case.needs_gpu
    assert case.why_not("cuda") is None


def test_all_cases_or_some_in_the_order_of_the_table(monkeypatch):
    monkeypatch.setattr(cases, "CASES", {name: tiny_case() for name in "abc"})
    assert list(choose_cases(None)) == ["a", "b", "c"]
    assert list(choose_cases(["c", "a"])) == ["a", "c"]
    with pytest.raises(UsageError, match="--cases d: no such case; there are a, b, c"):
        choose_cases(["a", "d"])


@pytest.mark.parametrize(
    ("at_least", "below", "equal", "above"), [(False, True, True, False), (True, False, True, True)]
)
def test_reached(at_least, below, equal, above):
    case = tiny_case(reach={"cpu": 1.5}, at_least=at_least)
    assert [case.reached(ratio, "cpu") for ratio in (1.4, 1.5, 1.6)] == [below, equal, above]
    assert case.reached(1.0, "cuda") is None


def test_memory_is_not_counted_everywhere():
    assert tiny_case(measure="memory").why_not("mps") == "memory is not counted on mps"
    assert tiny_case().why_not("mps") is None

import json

import pytest
import torch

from ramstrans.bench import run
from ramstrans.bench.flops import macs_of
from ramstrans.bench.run import measure, measure_case, modes_of, num_calls, run_cases
from tests.bench.builders import tiny_case, tiny_cases

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """All kinds of cases, tiny: the results, the folder, and what progress was told."""
    folder, told = tmp_path_factory.mktemp("bench") / "out", []
    results = run_cases(
        tiny_cases(), folder, CPU, num_rounds=3, command="ramstrans bench", progress=lambda *a: told.append(a)
    )
    return results, folder, told


def test_every_case_that_the_device_can_is_measured(tiny_run):
    results, _, told = tiny_run
    assert [result.name for result in results] == list(tiny_cases())
    for result in results:
        if result.case.needs_gpu:
            assert (result.ratio, result.reached, result.why_not) == (None, None, "no GPU")
            continue
        outcome = result.outcomes["eager"]
        count = 1 if result.case.measure == "memory" else 3
        assert {name: len(values) for name, values in outcome.values.items()} == dict.fromkeys(
            result.case.figure, count
        )
        assert min(min(values) for values in outcome.values.values()) > 0
        assert result.macs == macs_of(result.case.model_config())
        assert result.rollouts == {"eager": "tiles"}
    done, total, _ = told[-1]
    assert done == total == sum(num_calls(case, CPU, 3) for case in tiny_cases().values())


def test_bench_json_says_it_all(tiny_run):
    results, folder, _ = tiny_run
    written = json.loads((folder / "bench.json").read_text())
    assert written["command"] == "ramstrans bench"
    assert written["machine"]["threads"] == torch.get_num_threads()
    assert written["machine"]["versions"]["torch"] == torch.__version__.split("+")[0]
    assert written["cases"] == json.loads(json.dumps([result.to_json() for result in results]))
    by_name = {case["name"]: case for case in written["cases"]}
    assert by_name["gpu-training-448-bf16"]["not_measured"] == "no GPU"
    assert by_name["training-224-bf16"]["attention"] == "math"
    assert by_name["training-224-fp32"]["attention"] == "fused"
    assert by_name["regions-448-fp32"]["modes"]["eager"]["num_images"] == {"regions": 64, "ours": 2}
    assert (folder / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_a_case_is_written_down_before_the_next_is_measured(tmp_path, monkeypatch):
    measured = []

    def stop_at_second(name, *args, **options):
        if measured:
            raise KeyboardInterrupt
        measured.append(name)
        return measure_case(name, *args, **options)

    monkeypatch.setattr(run, "measure_case", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        run_cases({"a": tiny_case(), "b": tiny_case()}, tmp_path, CPU)
    assert [case["name"] for case in json.loads((tmp_path / "bench.json").read_text())["cases"]] == ["a"]


def test_out_of_memory_is_a_result(monkeypatch):
    def too_large(*_args):
        raise torch.OutOfMemoryError("64 GiB")

    monkeypatch.setattr(run, "measure", too_large)
    result = measure_case("a", tiny_case(), CPU)
    assert (result.why_not, result.ratio) == ("out of memory", None)


def test_memory_is_the_same_each_time_and_grows_with_the_batch():
    def peaks(batch_size):
        case = tiny_case(figure=("ours", "plain"), measure="memory", batch_size=batch_size)
        return measure(case, CPU, 1, "eager").values

    assert peaks(2) == peaks(2)
    assert peaks(4)["plain"][0] > 1.5 * peaks(2)["plain"][0]


def test_modes(monkeypatch):
    cuda = torch.device("cuda")
    assert modes_of(tiny_case(needs_gpu=True), cuda) == ("eager", "compiled")
    assert modes_of(tiny_case(needs_gpu=True, measure="memory"), cuda) == ("eager",)
    assert modes_of(tiny_case(), cuda) == ("eager",)
    assert modes_of(tiny_case(), CPU) == ("eager",)
    assert num_calls(tiny_case(needs_gpu=True), cuda, 5) == 2 * 2 * 6
    assert num_calls(tiny_case(needs_gpu=True), CPU, 5) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("task", ["inference", "training"])
def test_compiled_on_a_gpu(task):
    case = tiny_case(task=task, precision="bf16", needs_gpu=True)
    result = measure_case("a", case, torch.device("cuda", 0))
    assert set(result.outcomes) == {"eager", "compiled"}

import json

from ramstrans.bench.flops import Macs
from ramstrans.bench.results import Outcome, Result
from ramstrans.bench.timing import Spread
from tests.bench.builders import tiny_case

EAGER = Outcome({"ours": [6.0, 8.0, 10.0], "floor": [2.0, 4.0, 4.0]}, {"ours": 4, "floor": 2})
COMPILED = Outcome({"ours": [3.0, 3.0, 3.0], "floor": [3.0, 1.0, 2.0]}, {"ours": 4, "floor": 4})


def result_of(outcomes, **fields):
    return Result("a", tiny_case(reach={"cpu": 1.1}, **fields), "cpu", outcomes, Macs(10**9, 3 * 10**9))


def test_the_figure_is_the_median_of_ratios_of_one_image_within_rounds():
    assert EAGER.of_one_image("ours") == 2.0
    assert EAGER.ratios("ours", "floor") == [1.5, 1.0, 1.25]
    result = result_of({"eager": EAGER})
    assert result.ratio == Spread(1.25, 1.125, 1.375)
    assert result.reached is False


def test_the_mode_in_which_ours_is_fastest_counts_for_both():
    result = result_of({"eager": EAGER, "compiled": COMPILED})
    assert result.mode == "compiled"
    assert result.ratio.median == 1.5
    assert result_of({"eager": EAGER, "compiled": COMPILED}, figure=("floor", "ours")).mode == "compiled"


def test_json_has_every_value_and_comes_back():
    values = json.loads(json.dumps(result_of({"eager": EAGER, "compiled": COMPILED}).to_json()))
    assert values["modes"]["eager"]["values"] == dict(EAGER.values)
    assert values["modes"]["compiled"]["num_images"] == {"ours": 4, "floor": 4}
    assert (values["mode"], values["ratio"], values["reach"], values["reached"]) == (
        "compiled",
        1.5,
        1.1,
        False,
    )
    assert values["forward_of_one_image"]["ours"] == {"gmacs": 3.0, "gflops": 6.0}


def test_json_of_what_was_not_measured():
    result = Result("a", tiny_case(needs_gpu=True), "cpu", {}, why_not="no GPU")
    values = json.loads(json.dumps(result.to_json()))
    assert values["not_measured"] == "no GPU"
    assert values["ratio"] is values["quartiles"] is values["reached"] is values["mode"] is None
    assert values["modes"] == {}

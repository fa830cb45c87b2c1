"""The plan of a comparison: which runs follow from it, and every error of it in one line."""

import pytest
import yaml

from ramstrans.compare.plan import build_plan, read_plan
from ramstrans.errors import ConfigError

PLAN = """
data:
  cub: {root: CUB, val_fraction: 0}
  birds: photographs/birds
methods:
  plain: {model.num_scales: 1}
  two: {model: {num_scales: 2, zoom_source: full}}
options:
  training: {epochs: 3}
  training.lr: 2e-4
  variants:
    crop: {data.fit: crop}
    squash: {data.fit: squash}
seeds: [0, 7]
"""


def planned(**changes):
    return build_plan(yaml.safe_load(PLAN) | changes)


def test_methods_by_options_by_data_by_seeds(tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)
    plan = read_plan(tmp_path / "plan.yaml")
    assert len(plan.runs) == 2 * 2 * 2 * 2
    assert plan.contenders == ("plain/crop", "two/crop", "plain/squash", "two/squash")
    assert (plan.data, plan.baseline) == (("cub", "birds"), "plain/crop")
    first, last = plan.runs[0], plan.runs[-1]
    assert first.name == "plain__crop__cub__seed0"
    assert last.name == "two__squash__birds__seed7"
    assert last.words == [
        *("--training.epochs=3", "--training.lr=2e-4", "--data.root=photographs/birds", "--data.fit=squash"),
        *("--model.num_scales=2", "--model.zoom_source=full", "--seed=7"),
    ]
    assert "--data.val_fraction=0" in first.words
    assert [run.seed for run in plan.runs_of("cub", "two/crop")] == [0, 7]
    assert [run.seed for run in plan.runs[:8]] == [0] * 8  # a bit of everything first


def test_without_variants_names_are_shorter():
    plan = planned(options=None, baseline="two")
    assert plan.runs[0].name == "plain__cub__seed0"
    assert (plan.contenders, plan.baseline) == (("plain", "two"), "two")


def test_what_is_special_counts_more_than_what_is_common():
    plan = planned(options={"model.num_scales": 3, "recipe": "none"})
    assert [run.options["model.num_scales"] for run in plan.runs[:2]] == [1, 2]
    assert plan.runs[0].words[:2] == ["--model.num_scales=1", "--recipe=none"]


def test_a_method_may_have_no_options():
    assert planned(methods={"default": None}, options={}).runs[0].options == {
        "data.root": "CUB",
        "data.val_fraction": 0,
    }


LOOKS = {
    "one_look": {"of": "two", "num_scales": 1},
    "plain": {"model.num_scales": 1},
    "two": {"model.num_scales": 2},
    "exit": {"of": "two", "early_exit": "auto"},
}


def test_methods_that_evaluate_others():
    plan = planned(methods=LOOKS, baseline="plain/crop")
    assert plan.contenders[:4] == ("one_look/crop", "plain/crop", "two/crop", "exit/crop")
    one, _, two, exits = plan.runs[:4]
    assert one.of is two
    assert exits.of is two
    assert two.of is None
    assert (one.name, one.words) == ("one_look__crop__cub__seed0", ["--num_scales=1"])
    assert exits.words == ["--early_exit=auto"]
    assert plan.region_runs == ()


def test_regions_are_judged_of_what_is_trained():
    plan = planned(methods=LOOKS, baseline="plain/crop", regions=30)
    assert len(plan.region_runs) == 2 * 2 * 2 * 2
    first = plan.region_runs[0]
    assert (first.name, first.words) == ("plain__crop__cub__seed0__regions", ["--regions=30"])
    assert first.of is plan.runs[1]
    assert planned(regions="all").region_runs[0].words == ["--regions=all"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"regions": 0}, "regions is 0; give a number of test images to judge regions on, or all"),
        ({"regions": True}, "regions is true; give a number"),
        (
            {"methods": LOOKS | {"a": {"of": "exit", "num_scales": 1}}},
            'methods.a.of is "exit"; give a method',
        ),
        ({"methods": LOOKS | {"a": {"of": ["two"], "num_scales": 1}}}, "that is trained: plain, two"),
        (
            {"methods": LOOKS | {"a": {"of": "two", "num_scale": 1}}},
            r"num_scale \(did you mean num_scales\?\)",
        ),
        ({"methods": LOOKS | {"a": {"of": "two", "training.lr": 1}}}, "with `of` nothing is trained"),
        (
            {"methods": LOOKS | {"a": {"of": "two"}}},
            "methods.a is the same as two; give one of num_scales, early_exit, fusion",
        ),
        ({"metods": {}}, r"no key 'metods' in a plan \(did you mean methods\?\); it has data, methods"),
        ({"seeds": None}, r"seeds is null; give a list, e\.g\. `seeds: \[0, 1, 2\]`"),
        ({"seeds": 3}, "seeds is 3; give a list"),
        ({"seeds": []}, r"seeds is \[\]; give a list"),
        ({"seeds": [0, "a"]}, "seeds has a; give whole numbers from 0"),
        ({"seeds": [0, True]}, "seeds has True; give whole numbers"),
        ({"seeds": [-1]}, "seeds has -1; give whole numbers"),
        ({"seeds": [1, 2, 1]}, "seeds has 1 twice"),
        ({"data": {}}, "there are no data; name one or more"),
        ({"methods": None}, "there are no methods"),
        ({"methods": ["plain"]}, r'methods is \["plain"\]; give names and values'),
        ({"methods": {"plain": 3}}, "methods.plain is 3; give names and values"),
        ({"methods": {"a b": {}}}, "methods has the name 'a b', which is to name folders"),
        ({"methods": {"a__b": {}}}, "methods has the name 'a__b'"),
        ({"methods": {"../a": {}}}, r"methods has the name '\.\./a'"),
        ({"methods": {True: {}}}, "methods has the name True, as YAML reads yes, no, on, off"),
        ({"methods": {"a": {"seed": 3}}}, "methods.a has seed, which a plan cannot have: the key `seeds`"),
        ({"options": {"output": "x"}}, "options has output, which a plan cannot have: every run has its"),
        ({"options": {"resume": "x"}}, "options has resume, which a plan cannot have"),
        ({"options": {"model": {"a": 1}, "model.a": 2}}, "options has model.a twice"),
        ({"options": {"variants": {}}}, "there are no options.variants"),
        (
            {"options": {"variants": {"a": {"model.num_scales": 3}}}},
            "model.num_scales is given by options.variants.a ",
        ),
        (
            {"methods": {"a": {"data.split_seed": 3}}},
            "methods.a has data.split_seed, which decides what is tested",
        ),
        (
            {"methods": {"a": {"data": {"root": "x"}}}},
            "methods.a has data.root, which decides what is tested",
        ),
        (
            {"methods": {"a": {"data.hold_out_classes": ["x"]}}},
            "hold_out_classes, which decides what is tested",
        ),
        (
            {"methods": {"a": {}, "a_": {}}, "data": {"b": "x", "_b": "y"}, "options": {}},
            "two runs would be called a___b__seed0; give methods or data other names",
        ),
        ({"methods": {1: {}, "1": {}}}, "methods has 1 twice, as a number and as text; give each once"),
        ({"data": {"a": {"data.root": "x"}}}, "data.a has data.root; give options of the data without"),
        ({"data": {"a": {"root": "x", "folds": 5}}}, "data.a has folds 5, which makes several runs"),
        ({"baseline": "best"}, "baseline is 'best'; give one of plain/crop, two/crop"),
    ],
)
def test_errors(changes, said):
    with pytest.raises(ConfigError, match=said) as caught:
        planned(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds: [0]\nseeds: [1]", "plan.yaml is not YAML: 'seeds' comes twice"),
        ("methods: {a: {}, b: {}, a: {}}", "'a' comes twice"),
        ("methods: {", "is not YAML"),
        ("- a", r'plan.yaml: the plan is \["a"\]; give names and values'),
        ("", "there are no data"),
    ],
)
def test_files_that_are_no_plan(text, said, tmp_path):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_plan(tmp_path / "plan.yaml")
    with pytest.raises(ConfigError, match=r"nowhere.yaml cannot be read \(No such file or directory\)"):
        read_plan(tmp_path / "nowhere.yaml")
    (tmp_path / "plan.yaml").write_bytes(b"data: \xe9")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_plan(tmp_path / "plan.yaml")

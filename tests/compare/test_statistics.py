"""Intervals and tests against scipy and statsmodels, by hand, and by what they promise: their coverage."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as formulas
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from ramstrans.compare import statistics
from ramstrans.compare.statistics import CrossedBootstrap, holm, mcnemar, resample_seeds


def answers(seeds, images, *, skill=1.0, of_seeds=0.3, of_images=1.0, of_both=1.0, generator, shared=0.0):
    """(S, N) right answers with effects of seeds, of images, and of both; `shared` is of all methods."""
    effects = generator.normal(0, of_seeds, (seeds, 1)) + generator.normal(0, of_images, (1, images))
    return skill + effects + shared + generator.normal(0, of_both, (seeds, images)) > 0


def error_of(bootstrap, *names):
    """Standard error and degrees of freedom of a mean, or of the difference of two."""
    by_images = bootstrap.by_images[names[0]]
    if len(names) == 2:
        by_images = by_images - bootstrap.by_images[names[1]]
    by_seeds = [(bootstrap.by_seeds[name], bootstrap.right[name]) for name in names]
    return bootstrap._error(by_images, by_seeds, images_more=len(names) - 1)


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_is_that_of_statsmodels(seed):
    generator = np.random.default_rng(seed)
    first, second = generator.random((2, 41)) < np.array([[0.8], [0.6]])
    table = [
        [(first & second).sum(), (first & ~second).sum()],
        [(~first & second).sum(), (~first & ~second).sum()],
    ]
    assert mcnemar(first, second) == pytest.approx(their_mcnemar(table, exact=True).pvalue)
    assert mcnemar(first, second) == pytest.approx(mcnemar(second, first))
    assert mcnemar(first, first) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 7, 28])
def test_holm_is_that_of_statsmodels(count):
    p = np.random.default_rng(count).random(count) ** 3
    assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1].tolist())
    assert holm([]) == []
    assert holm([0.02, 0.02]) == [0.04, 0.04]


def test_one_seed_has_the_error_of_scipys_bootstrap_and_wilsons_interval():
    right = np.random.default_rng(1).random(211) < 0.7
    bootstrap = CrossedBootstrap({"a": right[None]})
    found = bootstrap.mean("a")
    theirs = stats.bootstrap((right.astype(float),), np.mean, n_resamples=5000, rng=np.random.default_rng(2))
    assert error_of(bootstrap, "a")[0] == pytest.approx(theirs.standard_error, rel=0.03)
    assert (found.mean, found.sd) == (pytest.approx(100 * right.mean()), None)
    wilsons = proportion_confint(right.sum(), 211, method="wilson")
    assert found.interval == pytest.approx([100 * end for end in wilsons], abs=0.3)


def clustered_error(values, signs):
    """Two-way clustered standard error of a regression on a constant or on the method, by statsmodels."""
    rows = [
        {"y": float(y), "method": sign, "image": image, "seed": f"{sign} {seed}"}
        for block, sign in zip(values, signs, strict=True)
        for (seed, image), y in np.ndenumerate(block)
    ]
    table = pd.DataFrame(rows)
    groups = np.stack([pd.factorize(table[name])[0] for name in ("image", "seed")], axis=1)
    formula = "y ~ 1" if len(signs) == 1 else "y ~ method"
    options = {"groups": groups, "use_correction": False}
    return formulas.ols(formula, table).fit(cov_type="cluster", cov_kwds=options).bse.iloc[-1]


def test_errors_are_the_two_way_clustered_ones_of_statsmodels():
    """With many seeds, where their corrections for few of them are near 1."""
    generator = np.random.default_rng(3)
    shared = generator.normal(0, 1, (1, 199))
    first, second = (
        answers(23, 199, generator=generator, shared=shared, skill=skill) for skill in (1.0, 0.7)
    )
    bootstrap = CrossedBootstrap({"a": first, "b": second})
    error, _ = error_of(bootstrap, "a")
    assert error == pytest.approx(clustered_error([first], [0]), rel=0.05)
    error, _ = error_of(bootstrap, "a", "b")
    theirs = clustered_error([first, second], [1, 0])
    assert error == pytest.approx((theirs**2 + 1 / 201**2) ** 0.5, rel=0.05)  # with Agresti and Min's image


def test_the_same_models_in_two_ways_are_paired_by_seed_too():
    """What a seed does to both cancels; the error is that of statsmodels for the differences."""
    generator = np.random.default_rng(9)
    shared = generator.normal(0, 1.5, (23, 1)) + generator.normal(0, 1, (1, 199))
    first, second = (
        answers(23, 199, of_seeds=0, of_images=0, shared=shared, skill=skill, generator=generator)
        for skill in (1.0, 0.7)
    )
    bootstrap = CrossedBootstrap({"a": first, "b": second})
    found, apart = (bootstrap.difference("a", "b", same_models=same) for same in (True, False))
    assert (found.test, apart.test) == ("t, same models", "t, seeds and images")
    assert found.difference == apart.difference
    half = (found.interval[1] - found.interval[0]) / 2
    assert half < 0.5 * (apart.interval[1] - apart.interval[0]) / 2
    theirs = clustered_error([first.astype(float) - second], [0])
    assert half / 100 == pytest.approx(stats.norm.ppf(0.975) * (theirs**2 + 1 / 201**2) ** 0.5, rel=0.1)


def test_the_seeds_resamples_vary_as_an_unbiased_estimate_says():
    """Seeds alone, all images alike: s^2 / S, of which a bootstrap has (S - 1) / S."""
    values = np.repeat([[1.0], [0.0], [1.0], [1.0]], 5, axis=1)
    drawn = resample_seeds(values, np.random.default_rng(0), 200_000)
    assert drawn.var() == pytest.approx(0.25 / 4, rel=0.02)  # s^2 = 4/3 * 3/16
    assert drawn.mean() == pytest.approx(0, abs=0.002)


def test_seeds_that_differ_by_chance_alone_add_nothing():
    """Every seed has as many right, so nothing is left of the seeds' variance."""
    values = np.array([[1, 1, 0, 1], [1, 0, 1, 1], [0, 1, 1, 1]])
    assert statistics.share_of_seeds(values) == 0
    assert not resample_seeds(values, np.random.default_rng(0)).any()


def test_degrees_of_freedom_are_between_those_of_seeds_and_images():
    generator = np.random.default_rng(4)
    far_apart = answers(3, 500, of_seeds=2.0, generator=generator)
    alike = answers(3, 500, of_seeds=0.0, generator=generator)
    bootstrap = CrossedBootstrap({"far": far_apart, "alike": alike})
    assert 2 <= error_of(bootstrap, "far")[1] < 2.2
    assert error_of(bootstrap, "alike")[1] > 100


def test_degrees_of_freedom_are_those_of_the_seeds_as_estimated():
    """V(seeds) counts before V(both) is subtracted; here by hand, for two methods of 3 and 2 seeds."""
    first = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]])
    second = np.array([[1, 1, 1, 0, 1, 0], [1, 0, 0, 0, 1, 0]])
    bootstrap = CrossedBootstrap({"a": first, "b": second})
    error, df = error_of(bootstrap, "a", "b")
    of_images = bootstrap.by_images["a"] - bootstrap.by_images["b"]
    below = (of_images.var() + 1 / 8**2) ** 2 / 5 + (1 / 36 / 3) ** 2 / 2 + (1 / 18 / 2) ** 2 / 1
    assert df == pytest.approx(error**4 / below)


def test_degrees_of_freedom_are_never_below_those_of_any_part():
    """Seeds that are right on opposite images: their mean does not vary, and nothing is left."""
    bootstrap = CrossedBootstrap({"a": np.array([[1, 0, 1, 0, 1], [0, 1, 0, 1, 0]])})
    error, df = error_of(bootstrap, "a")
    assert (error, df) == (0, 1)
    low, high = bootstrap.mean("a").interval
    assert low < 50 < high


def test_a_difference_is_paired():
    """The same images are hard for both, so the difference is known better than either accuracy."""
    generator = np.random.default_rng(5)
    hard = generator.normal(0, 3, (1, 400))
    right = {
        name: answers(3, 400, of_images=0, of_seeds=0, shared=hard, generator=generator) for name in "ab"
    }
    bootstrap = CrossedBootstrap(right)
    found, mean = bootstrap.difference("a", "b"), bootstrap.mean("a")
    assert found.interval[1] - found.interval[0] < 0.75 * (mean.interval[1] - mean.interval[0])
    back = bootstrap.difference("b", "a")
    assert (back.difference, back.p) == (-found.difference, found.p)
    assert back.interval == pytest.approx((-found.interval[1], -found.interval[0]))


def test_the_test_and_the_interval_agree():
    generator = np.random.default_rng(6)
    for skill in np.linspace(0.7, 1.3, 13):
        right = {
            "a": answers(3, 300, generator=generator),
            "b": answers(3, 300, skill=skill, generator=generator),
        }
        found = CrossedBootstrap(right).difference("a", "b")
        assert (found.p < 0.05) == (not found.interval[0] <= 0 <= found.interval[1])


def test_differences_stay_between_all_and_none():
    bootstrap = CrossedBootstrap({"all": np.ones((2, 10)), "none": np.zeros((2, 10))})
    assert bootstrap.difference("all", "none").interval[1] == 100
    assert bootstrap.difference("none", "all").interval[0] == -100


def test_extremes():
    ones, zeros = np.ones((3, 7), bool), np.zeros((3, 7), bool)
    bootstrap = CrossedBootstrap({"ones": ones, "zeros": zeros, "one": ones[:1]})
    assert bootstrap.mean("ones") == (100, 0, (pytest.approx(100 / (1 + 1.96**2 / 7), abs=0.1), 100))
    assert bootstrap.mean("zeros").interval[0] == 0
    assert bootstrap.difference("ones", "zeros").p < 0.001
    found = bootstrap.difference("ones", "one")
    assert (found.difference, found.p) == (0, 1)
    assert found.interval[1] == pytest.approx(100 * stats.t.ppf(0.975, 6) / 9)
    nearly = np.ones((3, 9), bool)
    nearly[0, 0] = False
    low, high = CrossedBootstrap({"a": nearly}).mean("a").interval
    assert 0 < low < 96 < high <= 100


def test_the_same_data_give_the_same_numbers():
    right = {"a": answers(3, 50, generator=np.random.default_rng(7))}
    assert CrossedBootstrap(right).mean("a") == CrossedBootstrap(right).mean("a")


def test_many_images_are_resampled_in_parts(monkeypatch):
    right = {"a": answers(1, 50, generator=np.random.default_rng(8))}
    whole = CrossedBootstrap(right).mean("a")
    monkeypatch.setattr(statistics, "CHUNK", 50 * 7)
    parts = CrossedBootstrap(right).mean("a")
    assert parts.interval == pytest.approx(whole.interval, rel=0.02)


@pytest.mark.parametrize(
    ("seeds", "of_seeds", "least"), [(2, 0.3, 0.86), (3, 0.0, 0.91), (3, 0.3, 0.91), (5, 0.15, 0.91)]
)
def test_intervals_cover_the_truth_and_tests_keep_their_level(seeds, of_seeds, least, monkeypatch):
    """Over seeds and images: 250 made-up experiments, each with methods that do not differ in truth.

    The interval of a mean of two seeds covers 88 %: where they agree by chance, they seem not to differ.
    """
    monkeypatch.setattr(statistics.resample_images, "__defaults__", (300,))
    monkeypatch.setattr(statistics.resample_seeds, "__defaults__", (300,))
    generator = np.random.default_rng(9)
    truth = 100 * stats.norm.cdf(1 / np.sqrt(1 + 1 + 0.2**2 + 1 + of_seeds**2))
    covered = agreed = 0
    for _ in range(250):
        shared = generator.normal(0, 1, (1, 211)) + generator.normal(0, 1, (1, 211))
        effects = {"of_seeds": of_seeds, "of_images": 0.2, "shared": shared, "generator": generator}
        bootstrap = CrossedBootstrap({name: answers(seeds, 211, **effects) for name in "ab"})
        low, high = bootstrap.mean("a").interval
        covered += low <= truth <= high
        agreed += bootstrap.difference("a", "b").p >= 0.05
    assert least <= covered / 250 <= 0.985
    assert 0.93 <= agreed / 250 <= 0.99


def test_images_alone_would_not_cover(monkeypatch):
    """What the seeds are for: without them, an interval of models that differ much misses the truth."""
    generator, covered = np.random.default_rng(10), 0
    monkeypatch.setattr(statistics.resample_images, "__defaults__", (300,))
    truth = 100 * stats.norm.cdf(1 / np.sqrt(1 + 1 + 0.3**2))
    for _ in range(100):
        values = answers(3, 401, generator=generator)
        low, high = CrossedBootstrap({"a": values.mean(axis=0)[None]}).mean("a").interval
        covered += low <= truth <= high
    assert covered < 70

"""Means, differences and tests of runs that differ in their seed and share their test images.

Whether the run of seed s is right on image i, y(s, i) in {0, 1}, depends on seed, image and both:

    y(s, i) = mean + a(s) + c(i) + e(s, i)

Seeds and images are crossed: every run answers every image. An interval over the images alone says what other
photographs would change, and forgets that another seed gives another model; one over the seeds alone forgets
the photographs. Here both are drawn.

The standard error is that of a crossed bootstrap: images are resampled, the same ones for all runs, and seeds
are resampled within each method. The mean over a resample of both would count e three times (the pigeonhole
bootstrap, Owen 2007, https://doi.org/10.1214/07-AOAS122): a tenth too much for a mean, and a half too much
for a difference of methods, in which c cancels and e does not. So the two resamples are added,

    mean* = mean + (mean over resampled images - mean) + k * (mean over resampled seeds - mean)

and k makes up for the two things that remain: the seeds' resamples vary by (S - 1) / S too little, and they
hold e, which the images' resamples hold already. The variance is then that of the two-way clustered standard
error, V(images) + V(seeds) - V(both): Cameron, Gelbach and Miller 2011, https://doi.org/10.1198/jbes.2010.07136.

Three seeds say little about how much seeds differ, which a bootstrap does not know. The intervals and tests
take the quantiles of Student's t, with the degrees of freedom of Satterthwaite 1946
(https://doi.org/10.2307/3002019), of V(images) with N - 1 and V(seeds) with S - 1: all of V(seeds), as it was
estimated, before V(both) is subtracted. So it is done for readers and cases in radiology, where few readers
judge the same many cases: Hillis 2007, https://doi.org/10.1002/sim.2532.

The interval of an accuracy has Wilson's form, with as many images as the standard error is worth, as for
clustered surveys (Dean and Pagano 2015, https://doi.org/10.1093/jssam/smv024): near 100 % a symmetric one
would be too short. That of a difference counts one image more on which the methods differ (Agresti and Min
2005, https://doi.org/10.1002/sim.1781): two that answer alike on 90 images may differ on the next.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

NUM_RESAMPLES = 5000
"""The standard error of so many resamples is off by 1 %."""

CHUNK = 2**23
"""Most counts of resampled images that are held at a time."""

LEVEL = 0.05
"""A difference with a smaller p, corrected by Holm, is called significant."""


class Mean(NamedTuple):
    """An accuracy over seeds and images, in percent.

    Attributes:
        mean: Over all seeds and images.
        sd: Standard deviation over seeds; None for one seed.
        interval: 95 % interval over seeds and images; of one seed, over images alone.
    """

    mean: float
    sd: float | None
    interval: tuple[float, float]


class Difference(NamedTuple):
    """How much more accurate one method is than another, on the same images.

    Attributes:
        difference: In percentage points.
        interval: Its 95 % interval, in percentage points.
        p: Of a two-sided test that there is none.
        test: `McNemar, exact` for one seed each, else `t, seeds and images`, or `t, same models`.
    """

    difference: float
    interval: tuple[float, float]
    p: float
    test: str


class CrossedBootstrap:
    """Means and differences of methods that were tested on the same images.

    Args:
        right: For each method, (S, N): whether the run of each of its S seeds is right on each of N images.
            Methods may have different numbers of seeds.

    >>> right = {"a": np.array([[1, 1, 1, 1, 0, 0]]), "b": np.array([[1, 0, 0, 0, 0, 0]])}
    >>> found = CrossedBootstrap(right).difference("a", "b")
    >>> round(found.difference), found.p, found.test  # three images are right in one only: p = 2 / 2^3
    (50, 0.25, 'McNemar, exact')
    """

    def __init__(self, right: Mapping[str, np.ndarray]) -> None:
        self.right = {name: np.asarray(values, dtype=np.float64) for name, values in right.items()}
        generator = np.random.default_rng(0)
        self.by_images = resample_images(
            {name: values.mean(axis=0) for name, values in self.right.items()}, generator
        )
        self.by_seeds = {name: resample_seeds(values, generator) for name, values in self.right.items()}

    def mean(self, name: str) -> Mean:
        """The accuracy of one method."""
        values = self.right[name]
        mean = float(values.mean())
        error, df = self._error(self.by_images[name], [(self.by_seeds[name], values)])
        size = mean * (1 - mean) / error**2 if error else values.shape[1]
        sd = 100 * float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else None
        return Mean(100 * mean, sd, wilson(mean, size, float(stats.t.ppf(0.975, df))))

    def difference(self, first: str, second: str, *, same_models: bool = False) -> Difference:
        """How much more accurate the first method is than the second, and a test of it.

        For one seed each, the exact test of McNemar: of the images that only one of the two runs has right,
        as many would be right in either if there were no difference. It compares two models, not methods.
        For several seeds it would count each image several times as if it were another one. A t test takes
        its place, with the error that the module describes: images are resampled for both methods together,
        seeds for each by itself, because seed 0 of one method has no more to do with seed 0 of another than
        with its seed 1.

        Args:
            first: Name of a method.
            second: Name of another.
            same_models: Whether their seeds are the same trained models, evaluated in two ways: then what a
                seed does to both cancels, and their differences are resampled seed by seed.
        """
        one, other = self.right[first], self.right[second]
        difference = float(one.mean() - other.mean())
        by_seeds = [(self.by_seeds[name], self.right[name]) for name in (first, second)]
        if same_models:
            by_seeds = [(resample_seeds(one - other, np.random.default_rng(0)), one - other)]
        by_images = self.by_images[first] - self.by_images[second]
        error, df = self._error(by_images, by_seeds, images_more=1)
        half = float(stats.t.ppf(0.975, df)) * error
        if len(one) == len(other) == 1:
            p, test = mcnemar(one[0] > 0, other[0] > 0), "McNemar, exact"
        else:
            p = 2 * float(stats.t.sf(abs(difference) / error, df)) if error else float(difference == 0)
            test = "t, same models" if same_models else "t, seeds and images"
        interval = max(100 * (difference - half), -100.0), min(100 * (difference + half), 100.0)
        return Difference(100 * difference, interval, p, test)

    def _error(
        self,
        by_images: np.ndarray,
        by_seeds: Sequence[tuple[np.ndarray, np.ndarray]],
        *,
        images_more: int = 0,
    ) -> tuple[float, float]:
        """Standard error of a mean or difference, and its degrees of freedom.

        Args:
            by_images: (R,) over resampled images.
            by_seeds: (R,) over resampled seeds, and the (S, N) values, of each method.
            images_more: Images on which two methods differ that are counted beside the real ones.
        """
        num_images = next(iter(self.right.values())).shape[1]
        variance = float(by_images.var()) + images_more / (num_images + 2) ** 2
        least = max(num_images - 1, 1)
        below = variance**2 / least
        for resampled, values in by_seeds:
            if (df := len(values) - 1) > 0:  # of a single one, nobody knows
                variance += float(resampled.var())
                below += float(values.mean(axis=1).var(ddof=1) / len(values)) ** 2 / df
                least = min(least, df)
        return math.sqrt(variance), max(variance**2 / below, least) if below else math.inf


def wilson(share: float, size: float, quantile: float) -> tuple[float, float]:
    """Wilson's interval of a share in [0, 1], in percent, for a sample that is worth `size` images.

    >>> [round(end, 1) for end in wilson(0.9, 100, 1.96)], [round(end, 1) for end in wilson(1.0, 100, 1.96)]
    ([82.6, 94.5], [96.3, 100.0])
    """
    more = quantile**2 / size
    centre = (share + more / 2) / (1 + more)
    half = quantile / (1 + more) * math.sqrt(share * (1 - share) / size + more / (4 * size))
    return 100 * max(centre - half, 0.0), 100 * min(centre + half, 1.0)


def resample_images(means: Mapping[str, np.ndarray], generator: np.random.Generator) -> dict[str, np.ndarray]:
    """(NUM_RESAMPLES,) means of each method over resampled images, the same resamples for all of them.

    `means` are (N,) over the seeds, for each of N images.
    """
    values = np.stack(list(means.values()), axis=1)
    num_images = len(values)
    drawn = []
    for begin in range(0, NUM_RESAMPLES, step := max(CHUNK // num_images, 1)):
        size = min(step, NUM_RESAMPLES - begin)
        chosen = generator.integers(num_images, size=(size, num_images))
        chosen += num_images * np.arange(size)[:, None]
        counts = np.bincount(chosen.ravel(), minlength=size * num_images).reshape(size, num_images)
        drawn.append(counts @ values / num_images)
    return dict(zip(means, np.concatenate(drawn).T, strict=True))


def resample_seeds(
    values: np.ndarray, generator: np.random.Generator, count: int = NUM_RESAMPLES
) -> np.ndarray:
    """(count,) deviations of the mean of (S, N) values over resampled seeds; they vary as a / S does."""
    num_seeds = len(values)
    if num_seeds == 1:
        return np.zeros(count)
    deviations = values.mean(axis=1) - values.mean()
    drawn = deviations[generator.integers(num_seeds, size=(count, num_seeds))].mean(axis=1)
    return np.asarray(drawn * math.sqrt(num_seeds / (num_seeds - 1) * share_of_seeds(values)))


def share_of_seeds(values: np.ndarray) -> float:
    """Share of the variance of the S seeds' means that is of the seeds themselves, not of e; in [0, 1].

    >>> round(share_of_seeds(np.array([[1, 1, 0, 0], [1, 1, 1, 1]])), 3)  # 1/8, of which e makes 1/6 over 4
    0.667
    """
    num_seeds, num_images = values.shape
    if num_images == 1:
        return 1.0
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    of_both = (rest**2).sum() / ((num_seeds - 1) * (num_images - 1))
    of_means = values.mean(axis=1).var(ddof=1)
    return float(max(1 - of_both / num_images / of_means, 0)) if of_means > 0 else 0.0


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """P of McNemar's exact test of two models' (N,) right answers: https://doi.org/10.1007/BF02295996.

    >>> mcnemar(np.array([True, True, True, False]), np.array([False, False, True, True]))
    1.0
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    total = only_first + only_second
    return float(stats.binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, by Holm's steps down: https://www.jstor.org/stable/4615733.

    >>> holm([0.01, 0.04, 0.03])  # 3 * 0.01, 2 * 0.03, and no less than that
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min((len(p_values) - rank) * p_values[index], 1.0))
        corrected[index] = float(largest)
    return corrected

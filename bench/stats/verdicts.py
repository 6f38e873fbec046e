"""Verdicts on paired differences, corrected for all comparisons of a report by flipping the signs of whole seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from bench.config.schema import MARGIN
from bench.stats.bootstrap import LEAST_SEEDS, PAIRED_RESAMPLES, Array, bounds
from bench.stats.power import RATE, seeds_needed

BETTER, WORSE, EQUIVALENT, UNDECIDED = "better", "worse", "equivalent", "undecided"
VERDICTS = (WORSE, BETTER, EQUIVALENT, UNDECIDED)  # as they are told: losses first
EVERY_FLIP = 14  # the most seeds of a dataset of which all signs are tried
CLIP, MOST_SHARED = 3.0, 0.25
LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class Decision:
    """What paired differences decide.

    Args:
        interval: The 95% interval of their median; None for fewer than six seeds.
        p: The corrected p-value of the hypothesis that their distribution is symmetric about zero.
        equivalence_p: The corrected p-value of the hypothesis that their centre is outside the margin.
        verdict: The verdict on the first method: better, worse, equivalent or undecided.
        needed: About how many seeds would decide with probability 0.8 if the differences go on as they are; infinite
            if more than 999.
    """

    interval: tuple[float, float] | None
    p: float
    equivalence_p: float
    verdict: str
    needed: float


def decide(differences: Sequence[tuple[str, Mapping[int, float]]], margin: float = MARGIN) -> list[Decision]:
    """The verdicts on all comparisons of a report.

    Better or worse: p is at most 5% and the interval excludes zero. Equivalent, which goes first: equivalence_p is at
    most 5% and the interval lies within the margin. Everything else is undecided.

    Under the hypothesis that two methods are alike, their difference at a seed is as likely to have the other sign.
    Signs are flipped for whole seeds of a dataset, in all its comparisons at once, so that their dependence is kept. Up
    to 14 seeds all choices of signs count, so that p-values are exact; above, 16,384 at random.
    The largest statistic over comparisons gives p-values that hold for all of them together, step by step from the
    largest down (Westfall & Young 1993, algorithm 4.1). Equivalence is two one-sided tests, of the differences plus and
    minus the margin (Schuirmann 1987), corrected in the same way.

    Fewer than six seeds decide nothing, and do not enter the correction.

    Args:
        differences: The dataset and the differences by seed of each comparison, in nats, all finite.
        margin: Differences within it do not matter, in nats; 0 for none.
    """
    ordered = [(dataset, tuple(sorted(by_seed.items()))) for dataset, by_seed in differences]
    return list(_decide(tuple(ordered), margin))


@lru_cache(maxsize=16)
def _decide(differences: tuple[tuple[str, tuple[tuple[int, float], ...]], ...], margin: float) -> tuple[Decision, ...]:
    able = [(dataset, dict(by_seed)) for dataset, by_seed in differences if len(by_seed) >= LEAST_SEEDS]
    datasets, samples = tuple(dataset for dataset, _ in able), [by_seed for _, by_seed in able]
    above, below = (_shifted(samples, margin, sign) for sign in (1.0, -1.0))
    sides = one_sided(datasets * 2, above + below)
    known = zip(two_sided(datasets, samples).tolist(), np.maximum(*np.split(sides, 2)).tolist(), strict=True)
    ps = [next(known) if len(by_seed) >= LEAST_SEEDS else (1.0, 1.0) for _, by_seed in differences]
    return tuple(
        _decision(np.array([value for _, value in by_seed]), p, equivalence_p, margin, len(samples))
        for (_, by_seed), (p, equivalence_p) in zip(differences, ps, strict=True)
    )


def _shifted(samples: Sequence[Mapping[int, float]], margin: float, sign: float) -> list[dict[int, float]]:
    return [{seed: margin + sign * value for seed, value in sample.items()} for sample in samples]


def _decision(values: Array, p: float, equal: float, margin: float, comparisons: int) -> Decision:
    ends = interval(values)
    verdict = UNDECIDED
    if ends is not None and equal <= RATE and -margin <= ends[0] <= ends[1] <= margin:
        verdict = EQUIVALENT
    elif ends is not None and p <= RATE and not ends[0] <= 0 <= ends[1]:
        verdict = BETTER if ends[0] > 0 else WORSE
    clipped = _clipped(values)
    spread = float(np.std(clipped, ddof=1)) if len(values) > 1 else math.inf
    return Decision(ends, p, equal, verdict, seeds_needed(abs(float(clipped.mean())), spread, margin, comparisons))


def interval(differences: Iterable[float]) -> tuple[float, float] | None:
    """A 95% interval of the median of paired differences, by the percentile bootstrap.

    With 6 to 20 skewed differences it covers the median 94 to 99 times in 100. Intervals of the mean, percentile or
    BCa, cover the true mean only 77 to 90 times in 100 with 5 to 10 differences: they miss the tail. Efron & Tibshirani
    1993, chapter 13.

    Args:
        differences: One per seed.

    Returns:
        The ends; None for fewer than six differences.
    """
    ordered = np.sort(np.asarray(list(differences), dtype=float))  # so that the order of seeds does not matter
    if len(ordered) < LEAST_SEEDS:
        return None
    low, high = bounds((ordered,), np.median, PAIRED_RESAMPLES)
    return float(low), float(high)


@dataclass(frozen=True)
class _Flips:
    """The comparisons of one dataset, and the sums of their differences under flipped signs.

    Args:
        members: The places of these comparisons among all, (m,).
        size: Their numbers of seeds, (m,).
        square: The sums of their squared differences, which flips do not change, (m,).
        sums: The sums of their differences under each flip, (flips, m); the first row is what was observed.
    """

    members: NDArray[np.intp]
    size: Array
    square: Array
    sums: Array

    @staticmethod
    def of(datasets: Sequence[str], samples: Sequence[Mapping[int, float]]) -> list[_Flips]:
        """Those of each dataset.

        Args:
            datasets: The dataset of each comparison.
            samples: Its differences by seed.
        """
        return [
            _Flips._of(np.flatnonzero([each == dataset for each in datasets]), samples)
            for dataset in dict.fromkeys(datasets)
        ]

    @staticmethod
    def _of(members: NDArray[np.intp], samples: Sequence[Mapping[int, float]]) -> _Flips:
        seeds = sorted({seed for place in members for seed in samples[place]})
        values = np.zeros((len(members), len(seeds)))
        for row, place in enumerate(members):
            known = [seeds.index(seed) for seed in samples[place]]
            values[row, known] = _clipped(np.array(list(samples[place].values())))
        size = np.array([float(len(samples[place])) for place in members])
        return _Flips(members, size, (values**2).sum(1), _signs(len(seeds)) @ values.T)

    @cached_property
    def prior(self) -> tuple[float, float]:
        """The log of the variance that the comparisons have in common, and how far each is drawn towards it.

        With few seeds a variance may be small by chance (Cui et al. 2005). The prior is found from squares, which flips
        do not change, as a test by flips requires.
        """
        return _prior(self.square / self.size, self.size)

    def t(self, level: float = 0.0, weight: float = 0.0) -> Array:
        """t of each comparison under each flip, (flips, m).

        Args:
            level: The log of the variance that each variance is drawn towards.
            weight: How far, from 0 to 1.
        """
        mean = self.sums / self.size
        freedom = np.maximum(self.size - 1, 1.0)
        square = self.square / self.size
        least = LEAST_SPREAD**2 * square  # of differences that are all equal
        variance = np.maximum((square - mean**2) * self.size / freedom, least)
        variance = math.exp(weight * level) * variance ** (1 - weight)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = mean / np.sqrt(variance / self.size)
        return np.where(self.square > 0, found, 0.0)


def two_sided(datasets: Sequence[str], samples: Sequence[Mapping[int, float]]) -> Array:
    """Corrected p-values of a centre of zero, (C,).

    Args:
        datasets: The dataset of each comparison.
        samples: Its differences by seed, in nats.
    """
    flips = _Flips.of(datasets, samples)
    return _stepped(flips, [np.abs(each.t(*each.prior)) for each in flips])


def one_sided(datasets: Sequence[str], samples: Sequence[Mapping[int, float]]) -> Array:
    """Corrected p-values of a centre of at most zero, (C,).

    Args:
        datasets: The dataset of each comparison.
        samples: Its differences by seed, in nats.
    """
    flips = _Flips.of(datasets, samples)
    return _stepped(flips, [each.t() for each in flips])


@cache
def _signs(seeds: int) -> Array:
    """Signs of seeds, (flips, seeds), all plus first: every choice of them, or as many at random for more seeds."""
    if seeds <= EVERY_FLIP:
        return np.where(np.arange(2**seeds)[:, None] >> np.arange(seeds) & 1, -1.0, 1.0)
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (2**EVERY_FLIP, seeds))
    signs[0] = 1.0
    return signs


def _stepped(flips: Sequence[_Flips], statistics: Sequence[Array]) -> Array:
    """The corrected p-value of each comparison, (C,), by the largest statistic of those that are no larger.

    Datasets are flipped independently. So the largest statistic of all stays below a value with the product of the
    probabilities with which that of each dataset does, and these need the flips of one dataset only.

    Args:
        flips: The comparisons of each dataset.
        statistics: Their statistics under each flip, (flips, m) each.
    """
    observed = np.zeros(sum(len(each.members) for each in flips))
    for each, statistic in zip(flips, statistics, strict=True):
        observed[each.members] = statistic[0]
    order = np.argsort(-observed, kind="stable")
    step = np.argsort(order)
    value = observed[order] - 1e-9 * np.abs(observed[order])
    below = np.ones(len(observed))
    for each, statistic in zip(flips, statistics, strict=True):
        own = np.argsort(step[each.members])
        most = np.maximum.accumulate(statistic[:, own[::-1]], axis=1)[:, ::-1]
        first = np.searchsorted(step[each.members[own]], np.arange(len(observed)))  # of those that are left at a step
        left = first < len(own)
        below[left] *= 1 - (most[:, first[left]] >= value[left]).mean(axis=0)
    p = np.empty(len(observed))
    p[order] = np.maximum.accumulate(1 - below)
    return p


def _clipped(values: Array) -> Array:
    """Differences cut at three times their median size, so that one large seed does not hide what all seeds show.

    Normal differences are hardly ever cut. Flips do not change what is cut.
    """
    usual = float(np.median(np.abs(values)))
    return np.clip(values, -CLIP * usual, CLIP * usual) if usual > 0 else values


def _prior(squares: Array, sizes: Array) -> tuple[float, float]:
    """The log of the variance that the comparisons of a dataset have in common, and its weight, at most a quarter.

    The weight is that of James and Stein: the variance that log mean squares of normal differences would have if all
    comparisons had the same spread, divided by the variance that they have (Cui et al. 2005, eq. 3).

    Args:
        squares: The mean square of each comparison's differences about zero, (m,).
        sizes: The number of its seeds, (m,).
    """
    from scipy.special import polygamma

    known = squares > 0
    if known.sum() < 2:
        return 0.0, 0.0
    log_squares = np.log(squares[known])
    by_chance = float(polygamma(1, sizes[known] / 2).mean())
    weight = by_chance / max(float(np.var(log_squares, ddof=1)), by_chance)
    return float(log_squares.mean()), min(weight, MOST_SHARED)

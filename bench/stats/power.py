"""What the verdicts of a report can find, before it is made: by simulation of normal differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from bench.stats.bootstrap import LEAST_SEEDS, LEVEL, Array

RATE = 0.05  # of wrong verdicts
POWER = 0.8
MOST_SEEDS = 999
_SIMULATED = 1000
_FEW = 30  # with more seeds, what is needed falls as the square root of their number


def least_effect(seeds: int, comparisons: int) -> float:
    """The least difference, in standard deviations of differences, that is called better with probability 0.8.

    The interval of the median must exclude zero, and t must be significant, corrected for the number of comparisons
    (Bonferroni, in place of the step-down maximum).

    Args:
        seeds: The number of seeds.
        comparisons: The number of comparisons of the report.

    Returns:
        Infinite for fewer than six seeds, which decide nothing.
    """
    return _needed(seeds, comparisons, _for_better)


def least_margin(seeds: int, comparisons: int) -> float:
    """The least margin, in standard deviations of differences, within which equals are called equivalent.

    With probability 0.8. The interval of the median must lie within it, and both one-sided t must be significant.

    Args:
        seeds: The number of seeds.
        comparisons: The number of comparisons of the report.

    Returns:
        Infinite for fewer than six seeds, which decide nothing.
    """
    return _needed(seeds, comparisons, _for_equivalent)


def seeds_needed(centre: float, spread: float, margin: float, comparisons: int) -> float:
    """About how many seeds decide with probability 0.8.

    Args:
        centre: The size of the mean difference, in nats.
        spread: The standard deviation of the differences.
        margin: The margin of equivalence.
        comparisons: The number of comparisons of the report.

    Returns:
        At least 6; infinite above 999.
    """
    if max(centre, margin - centre) <= 0:
        return math.inf

    def enough(seeds: int) -> bool:
        better = centre > 0 and centre >= spread * least_effect(seeds, comparisons)
        return better or margin - centre >= spread * least_margin(seeds, comparisons)

    low, high = LEAST_SEEDS, MOST_SEEDS
    if not enough(high):
        return math.inf
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return float(low)


@lru_cache(maxsize=8192)
def _needed(seeds: int, comparisons: int, of: Callable[[Simulated, float], Array]) -> float:
    if seeds < LEAST_SEEDS:
        return math.inf
    from scipy.special import stdtrit

    rate = RATE
    if of is _for_better:  # on two sides; and of few flips, those that leave all of a clear difference alike count
        rate = (RATE - 2.0 ** (1 - seeds) if comparisons > 1 else RATE) / 2
    critical = float(stdtrit(seeds - 1, 1 - rate / max(1, comparisons)))
    few = min(seeds, _FEW)
    return float(np.quantile(of(_simulated(few), critical), POWER)) * math.sqrt(few / seeds)


Simulated = tuple[Array, Array, Array, Array]


def _for_better(simulated: Simulated, critical: float) -> Array:
    """By how much each sample must be shifted to be called better."""
    low, _, mean, error = simulated
    return np.maximum(-low, critical * error - mean)


def _for_equivalent(simulated: Simulated, critical: float) -> Array:
    """The least margin within which each sample is called equivalent."""
    low, high, mean, error = simulated
    return np.maximum(np.maximum(-low, high), critical * error + np.abs(mean))


@lru_cache(maxsize=32)
def _simulated(seeds: int) -> Simulated:
    """Samples of standard normal differences, in rows: ends of the interval of the median, mean, its standard error.

    The bootstrap distribution of a median is known without resamples: that of two neighbouring order statistics of
    draws from a sample, k of which are at most the lower one.
    """
    from scipy.stats import binom

    drawn = np.sort(np.random.default_rng(0).standard_normal((_SIMULATED, seeds)), axis=1)
    below, half = np.arange(seeds + 1) / seeds, seeds // 2
    if seeds % 2:
        values, weights = drawn, np.diff(binom.sf(half, seeds, below))
    else:
        first, second = np.triu_indices(seeds, 1)
        lower = np.diff(below**half) * math.comb(seeds, half)
        upper = -np.diff((1 - below) ** half)
        apart = lower[first] * upper[second]
        alone = np.diff(binom.sf(half - 1, seeds, below))
        alone -= np.bincount(first, apart, seeds)
        values = np.concatenate([(drawn[:, first] + drawn[:, second]) / 2, drawn], axis=1)
        weights = np.concatenate([apart, alone])
    order = np.argsort(values, axis=1)
    share = np.cumsum(weights[order], axis=1)
    low, high = (
        np.take_along_axis(values, np.take_along_axis(order, at[:, None], 1), 1)[:, 0]
        for at in ((share < (1 - LEVEL) / 2).sum(1), (share < (1 + LEVEL) / 2).sum(1))
    )
    return low, high, drawn.mean(1), drawn.std(1, ddof=1) / math.sqrt(seeds)

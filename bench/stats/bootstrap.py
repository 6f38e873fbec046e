"""Bootstrap intervals with the seed as the unit. Datasets are resampled separately, always with the same resamples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL = 0.985
LEAST_SEEDS, LEAST_PROBLEMS = 6, 5
RESAMPLES = 1999  # of medians, means and ranks
PAIRED_RESAMPLES = 9999  # of paired differences, on which verdicts rest
CURVE_RESAMPLES = 999  # of costs to a target and profiles, of which there are many; enough for less than a seed's step
MANY_SEEDS, LEAST_RESAMPLES = 200, 499  # of more seeds fewer resamples are drawn: their intervals are narrow already
NEVER = 1e150  # stands for infinity, whose quantiles would be NaN
_BATCH = 2_000_000  # values held at once


def bounds(samples: Sequence[Array], statistic: Callable[..., Any], resamples: int = RESAMPLES) -> tuple[Array, Array]:
    """95% intervals of statistic(*samples, axis=-1). Infinity counts as a value.

    The bootstrap is stratified: the seeds of each dataset are resampled separately (Efron & Tibshirani 1993, chapter 8;
    Agarwal et al. 2021, arXiv 2108.13264). Percentiles are at 98.5%, because intervals of so few seeds at 95% cover the
    truth only 86 times in 100 (docs/statistics.md has the coverage found by simulation).

    Args:
        samples: One array (..., seeds) per dataset.
        statistic: Takes the samples and `axis`, and reduces that axis.
        resamples: Number of bootstrap resamples, for at most 200 seeds; of more, as many as take the same time, but at
            least 499.

    Returns:
        The lower and the upper ends, each (...); NaN if any dataset has fewer than six seeds.
    """
    if not samples or min(sample.shape[-1] for sample in samples) < LEAST_SEEDS:
        shape = samples[0].shape[:-1] if samples else ()
        return np.full(shape, np.nan), np.full(shape, np.nan)
    contents = tuple((sample.shape, np.asarray(sample, dtype=float).tobytes()) for sample in samples)
    low, high = _bounds(contents, statistic, resamples)
    return low.copy(), high.copy()


@lru_cache(maxsize=64)
def _bounds(
    contents: tuple[tuple[tuple[int, ...], bytes], ...], statistic: Callable[..., Any], resamples: int
) -> tuple[Array, Array]:
    """The ends for samples of such shapes and values. Kept, because parts of a report ask for the same intervals."""
    from scipy.stats import bootstrap

    samples = [np.frombuffer(values).reshape(shape) for shape, values in contents]
    seeds = max(sample.shape[-1] for sample in samples)
    resamples = max(min(resamples, LEAST_RESAMPLES), resamples * MANY_SEEDS // max(seeds, MANY_SEEDS))
    finite = tuple(np.clip(sample, -NEVER, NEVER) for sample in samples)
    found = bootstrap(
        finite,
        statistic,
        n_resamples=resamples,
        batch=max(1, _BATCH // max(1, sum(sample.size for sample in finite))),
        confidence_level=LEVEL,
        method="percentile",
        vectorized=True,
        axis=-1,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return _infinite(found.low), _infinite(found.high)


def _infinite(ends: Array) -> Array:
    """Ends to which an infinity contributed, as infinite."""
    ends = np.asarray(ends, dtype=float)
    return np.where(np.abs(ends) > np.sqrt(NEVER), np.copysign(np.inf, ends), ends)


def bounds_over_problems(
    samples: Sequence[Array], of_dataset: Callable[..., Any], over: Callable[..., Any], resamples: int = RESAMPLES
) -> tuple[float, float]:
    """A 95% interval of a statistic over datasets that is also valid for other datasets of their kind.

    Datasets are resampled, and within each of them seeds (two-stage bootstrap; Davison & Hinkley 1997, section 3.8).

    Args:
        samples: One array (seeds,) per dataset. Infinity counts as a value.
        of_dataset: Reduces the seeds of a dataset; takes `axis`.
        over: Reduces the values of datasets; takes `axis`.
        resamples: Number of bootstrap resamples.

    Returns:
        The ends; NaN for fewer than `LEAST_PROBLEMS` datasets, and if any has fewer than six seeds or a NaN.
    """
    few = len(samples) < LEAST_PROBLEMS or min(map(len, samples)) < LEAST_SEEDS
    if few or any(np.isnan(sample).any() for sample in samples):
        return math.nan, math.nan
    random = np.random.default_rng(0)
    chosen = random.integers(len(samples), size=(resamples, len(samples)))
    values = np.empty(chosen.shape)
    for place, sample in enumerate(samples):
        finite = np.clip(np.asarray(sample, dtype=float), -NEVER, NEVER)
        drawn = random.integers(len(finite), size=(*chosen.shape, len(finite)))
        values[chosen == place] = of_dataset(finite[drawn[chosen == place]], axis=-1)
    low, high = np.quantile(over(values, axis=-1), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(_infinite(low)), float(_infinite(high))


def mean_of_means(*samples: Array, axis: int = -1) -> Any:
    """The mean over datasets of the mean over seeds; every dataset has the same weight.

    Args:
        *samples: One array (..., seeds) per dataset; without the axis of seeds, all have the same shape.
        axis: The axis of seeds.

    Returns:
        The means, (...), in the unit of the samples.
    """
    return np.mean([np.mean(sample, axis=axis) for sample in samples], axis=0)


def mean_of_medians(*samples: Array, axis: int = -1) -> Any:
    """The mean over datasets of the median over seeds; every dataset has the same weight.

    Args:
        *samples: One array (..., seeds) per dataset; without the axis of seeds, all have the same shape.
        axis: The axis of seeds.

    Returns:
        The means, (...), in the unit of the samples.
    """
    return np.mean([np.median(sample, axis=axis) for sample in samples], axis=0)

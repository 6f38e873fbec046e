"""Bootstrap intervals with the seed as the unit: dataset by dataset, always of the same resamples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL = 0.985
LEAST_SEEDS = 6
RESAMPLES = 1999
NEVER = 1e150  # stands for infinity, whose quantiles would be NaN
_BATCH = 2_000_000  # values held at once


def bounds(samples: Sequence[Array], statistic: Callable[..., Any], resamples: int = RESAMPLES) -> tuple[Array, Array]:
    """The ends of 95% intervals of statistic(*samples, axis=-1), each (...); infinity is a value as any other.

    samples: one array (..., seeds) for each dataset, whose seeds are drawn anew apart from the others' (stratified
    bootstrap: Efron & Tibshirani 1993, chapter 8; Agarwal et al. 2021, arXiv 2108.13264). Percentiles at 98.5%: at 95%,
    intervals of so few cover the truth only 86 times in 100 (docs/statistics.md has the coverage found by simulation).
    NaN where a dataset has fewer than six seeds.
    """
    from scipy.stats import bootstrap

    if not samples or min(sample.shape[-1] for sample in samples) < LEAST_SEEDS:
        shape = samples[0].shape[:-1] if samples else ()
        return np.full(shape, np.nan), np.full(shape, np.nan)
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


def iqm(*samples: Array, axis: int = -1) -> Any:
    """The interquartile mean of all runs of all datasets: the mean of the middle half (Agarwal et al. 2021)."""
    from scipy.stats import trim_mean

    return trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)


def mean_of_means(*samples: Array, axis: int = -1) -> Any:
    """The mean over datasets of the mean over seeds, in which each dataset counts the same."""
    return np.mean([np.mean(sample, axis=axis) for sample in samples], axis=0)


def median_of_medians(*samples: Array, axis: int = -1) -> Any:
    """The median over datasets of the median over seeds."""
    return np.median([np.median(sample, axis=axis) for sample in samples], axis=0)

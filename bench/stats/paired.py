"""Paired comparisons: what a few seeds, on each of which two methods met the same data, say of a difference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.stats.bootstrap import LEAST_SEEDS, bounds

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 9999
RATE = 0.05
BETTER, INDISTINGUISHABLE, WORSE = "better", "indistinguishable", "worse"


def interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """A 95% interval of the median of paired differences; None for fewer than six.

    The percentile bootstrap of the median (Efron & Tibshirani 1993, chapter 13), as in `resampling.bounds`: it covers
    the median of skewed differences 94 to 99 times in 100 from 6 to 20 of them. Intervals of the mean, percentile or
    BCa, cover the true mean 77 to 90 times for 5 to 10: they miss the tail.
    """
    if len(differences) < LEAST_SEEDS:
        return None
    ordered = np.sort(np.asarray(differences, dtype=float))  # so that the order of seeds does not count
    low, high = bounds((ordered,), np.median, RESAMPLES)
    return float(low), float(high)


def p_value(differences: Sequence[float]) -> float:
    """How probable so one-sided differences are where none is meant: the exact signed-rank test (Wilcoxon 1945).

    Two-sided; of n differences it is at least 2 / 2^n, so that five can never be told apart at 5%. 1 where all are nil.
    """
    values = np.asarray(differences, dtype=float)
    values = values[values != 0]
    if len(values) == 0:
        return 1.0
    from scipy.stats import PermutationMethod, wilcoxon

    tied = len(np.unique(np.abs(values))) < len(values)
    every_sign = PermutationMethod(n_resamples=RESAMPLES, rng=np.random.default_rng(0))  # all 2^n up to 13 differences
    return float(wilcoxon(values, method=every_sign if tied else "auto").pvalue)


def corrected(p_values: Sequence[float]) -> list[float]:
    """p-values such that, of those up to 5%, at most 5% are expected to be false (Benjamini & Hochberg 1995)."""
    if not len(p_values):
        return []
    from scipy.stats import false_discovery_control

    return false_discovery_control(np.asarray(p_values)).tolist()


def verdict(bounds: tuple[float, float] | None, p: float) -> str:
    """Better or worse if the interval of the difference lies on one side of zero and p is up to 5%.

    p: corrected for the number of comparisons. Otherwise, as for too few seeds, indistinguishable.
    """
    if bounds is None or bounds[0] <= 0 <= bounds[1] or not p <= RATE:
        return INDISTINGUISHABLE
    return BETTER if bounds[0] > 0 else WORSE


@dataclass(frozen=True)
class Match:
    """What a method spends until its test_ll first reaches the other's final one, in units of what the other does.

    wall_ratios, flops_ratios: of each of the seeds `of`, infinite where it never reaches it. The other is charged up to
    where it first had as much.
    """

    of: tuple[int, ...]
    wall_ratios: tuple[float, ...]
    flops_ratios: tuple[float, ...]

    @property
    def wall(self) -> float:
        """The median over seeds."""
        return float(np.median(self.wall_ratios))

    @property
    def flops(self) -> float:
        """The median over seeds."""
        return float(np.median(self.flops_ratios))

    @property
    def reached(self) -> int:
        """How many of the seeds reach it."""
        return int(np.sum(~np.isinf(self.flops_ratios)))

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return len(self.of)

    @property
    def usual(self) -> bool:
        """Whether more than half of the seeds reach it."""
        return 2 * self.reached > self.seeds


def cost_to_match(mine: pd.DataFrame, theirs: pd.DataFrame, seeds: Iterable[int]) -> Match:
    """The cost at which a method's looks first reach the other's final test_ll, whatever later looks show.

    mine, theirs: rows of test_ll on one dataset, with seed, checkpoint, value, wall_s and flops.
    """
    final = theirs.sort_values("checkpoint").drop_duplicates("seed", keep="last").set_index("seed")["value"]
    of = tuple(seeds)
    own, other = (_first_reaching(looks, final).reindex(of) for looks in (mine, theirs))

    def ratios(cost: str) -> tuple[float, ...]:
        spent = other[cost].where(other[cost] > 0)
        return tuple((own[cost] / spent).where(own["value"].notna(), float("inf")).astype(float))

    return Match(of, ratios("wall_s"), ratios("flops"))


def _first_reaching(looks: pd.DataFrame, targets: pd.Series) -> pd.DataFrame:
    """The first look of each seed that reaches its target; without the seeds that have none."""
    reaching = looks[looks["value"] >= looks["seed"].map(targets)]
    return reaching.sort_values("checkpoint").drop_duplicates("seed").set_index("seed")

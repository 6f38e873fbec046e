"""One method against another, dataset by dataset and over all datasets."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from bench.config.schema import MARGIN
from bench.stats.bootstrap import bounds_over_problems
from bench.stats.cost_to_target import DELTAS
from bench.stats.matching import Match, cost_to_come_near, cost_to_match
from bench.stats.summary import final, finished, learners, with_quotable_seconds
from bench.stats.verdicts import Decision, decide
from bench.store.schema import PAIR, RUN

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Difference:
    """How far one method is ahead of another on a dataset, by paired differences over the seeds that both finished.

    Both methods of a pair were fitted and scored on the same data, since each seed is one draw of the data.

    Args:
        dataset: The dataset's label.
        by_seed: The difference in final test_ll at each shared seed, in nats.
        flops: The median total FLOPs, divided by the other's.
        wall: The median total wall time, divided by the other's.
        match: The cost to reach the other's final test_ll.
        back: The other's cost to reach the first one's final test_ll.
        near: The costs to come within each distance of `DELTAS` of the true model; empty if it is not known.
        decision: What the differences decide, given all comparisons of the report.
        lost: How many seeds are left out because the first method did not finish them, and because the other did not.
    """

    dataset: str
    by_seed: dict[int, float]
    flops: float
    wall: float
    match: Match
    back: Match
    near: tuple[Match, ...]
    decision: Decision
    lost: tuple[int, int] = (0, 0)

    @property
    def nats(self) -> float:
        """The median over shared seeds."""
        return float(np.median(list(self.by_seed.values())))

    @property
    def seeds(self) -> int:
        """Number of shared seeds."""
        return len(self.by_seed)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the median; None for too few seeds."""
        return self.decision.interval

    @property
    def verdict(self) -> str:
        """Better, worse, equivalent or undecided, corrected for the number of comparisons."""
        return self.decision.verdict


@dataclass(frozen=True)
class CostRatio:
    """A ratio of the costs of two methods to reach a target, over datasets: the median of medians over seeds.

    Args:
        flops: The ratio of FLOPs; infinite where half of the datasets or more are missed.
        flops_interval: Its 95% interval for other datasets of this kind too; NaN for too few datasets or seeds.
        wall: The ratio of wall times.
        wall_interval: The same of it.
        missed: The datasets on which half of the seeds or more miss the target.
        neither: The datasets on which the other method misses it too; they are left out of the median.
        datasets: The number of datasets, those included.
        passage: The median over datasets of the share of its total at which the other method reaches the target.
        reached: How many runs reach the target, on all datasets.
        runs: The number of runs on all datasets.
    """

    flops: float
    flops_interval: tuple[float, float]
    wall: float
    wall_interval: tuple[float, float]
    missed: tuple[str, ...]
    neither: tuple[str, ...]
    datasets: int
    passage: float
    reached: int
    runs: int


@dataclass(frozen=True)
class Comparison:
    """A baseline against another method.

    Args:
        baseline: The baseline's label.
        other: The other method's label.
        differences: One per dataset on which both finished a shared seed.
        missing: The other datasets.
    """

    baseline: str
    other: str
    differences: tuple[Difference, ...]
    missing: tuple[str, ...]

    def having(self, verdict: str) -> list[Difference]:
        """The differences with a verdict.

        Args:
            verdict: One of `bench.stats.verdicts.VERDICTS`.
        """
        return [each for each in self.differences if each.verdict == verdict]

    @cached_property
    def match(self) -> CostRatio:
        """The baseline's cost to reach the other's final test_ll."""
        return self._over_datasets(lambda each: each.match)

    @cached_property
    def back(self) -> CostRatio:
        """The other's cost to reach the baseline's final test_ll."""
        return self._over_datasets(lambda each: each.back)

    @cached_property
    def near(self) -> list[tuple[float, CostRatio]]:
        """The baseline's cost to come within each distance of the true model, over the other's."""
        if any(not each.near for each in self.differences):
            return []
        return [
            (distance, self._over_datasets(lambda each, place=place: each.near[place]))  # type: ignore[misc]
            for place, distance in enumerate(DELTAS)
        ]

    def _over_datasets(self, chosen: Callable[[Difference], Match]) -> CostRatio:
        found = {each.dataset: chosen(each) for each in self.differences}
        counted = {name: each for name, each in found.items() if not each.neither}
        flops, flops_interval = _median([each.flops_ratios for each in counted.values()])
        wall, wall_interval = _median([each.wall_ratios for each in counted.values()])
        missed = tuple(name for name, each in counted.items() if not each.usual)
        neither = tuple(name for name in found if name not in counted)
        passages = [each.passage for each in counted.values()]
        passage = float(np.median(passages)) if passages else math.nan
        reached, runs = sum(each.reached for each in found.values()), sum(len(each.seeds) for each in found.values())
        return CostRatio(
            flops, flops_interval, wall, wall_interval, missed, neither, len(found), passage, reached, runs
        )


def _median(ratios: Sequence[tuple[float, ...]]) -> tuple[float, tuple[float, float]]:
    """The median over datasets of the median over seeds, and its interval."""
    samples = [np.array([ratio for ratio in each if not math.isnan(ratio)]) for each in ratios]
    if not samples or any(len(sample) == 0 for sample in samples):
        return math.nan, (math.nan, math.nan)
    middle = float(np.median([np.median(sample) for sample in samples]))
    return middle, bounds_over_problems(samples, np.median, np.median)


def pairs(runs: pd.DataFrame, baseline: Collection[str] = ()) -> list[tuple[str, str]]:
    """Which methods are compared: each baseline with each fitted method that is no baseline.

    Args:
        runs: The table of runs, with the column `role`.
        baseline: Labels. If none of them was run, or all fitted methods are baselines, the first fitted method is the
            only baseline.

    Returns:
        Pairs of a baseline and another method.
    """
    methods = learners(runs)
    chosen = [method for method in methods if method in baseline]
    first = chosen if 0 < len(chosen) < len(methods) else methods[:1]
    return [(one, other) for one in first for other in methods if other not in first]


def comparisons(
    measurements: pd.DataFrame, runs: pd.DataFrame, baseline: Collection[str] = (), margin: float = MARGIN
) -> list[Comparison]:
    """The comparisons of a report, each over the seeds that both methods finished.

    The verdicts are corrected for all of them together.

    Args:
        measurements: The table of measurements.
        runs: The table of runs.
        baseline: The methods that are compared with every other one.
        margin: Differences within it do not matter, in nats.
    """
    measurements, runs = (with_quotable_seconds(each) for each in (measurements, runs))
    ends = final(measurements, runs).reindex(columns=["test_ll", "oracle_gap"]).dropna(subset="test_ll")
    costs = runs.drop_duplicates(RUN).set_index(RUN).reindex(columns=["flops", "wall_s"]).astype(float)
    rows = finished(measurements, runs)
    tables = _Tables(
        {pair: each.droplevel([0, 1]) for pair, each in ends.join(costs).groupby(PAIR, sort=False)},  # type: ignore[misc]
        dict(iter(rows[rows["metric"] == "test_ll"].groupby(PAIR, sort=False))),  # type: ignore[arg-type]
        {pair: frozenset(each) for pair, each in runs.groupby(PAIR, sort=False)["seed"]},  # type: ignore[misc]
    )
    datasets = list(runs["dataset"].unique())
    return _decided([_compare(tables, datasets, *pair) for pair in pairs(runs, baseline)], margin)


def _decided(found: list[Comparison], margin: float) -> list[Comparison]:
    """The comparisons with what all their differences together decide."""
    decisions = iter(decide([(each.dataset, each.by_seed) for one in found for each in one.differences], margin))
    return [
        replace(one, differences=tuple(replace(each, decision=next(decisions)) for each in one.differences))
        for one in found
    ]


@dataclass(frozen=True)
class _Tables:
    """Final values and total costs by seed, test_ll at every checkpoint, and all seeds, of each dataset and method."""

    ends: Mapping[tuple[str, str], pd.DataFrame]
    checkpoints: Mapping[tuple[str, str], pd.DataFrame]
    seeds: Mapping[tuple[str, str], frozenset[int]]


def _compare(tables: _Tables, datasets: list[str], baseline: str, other: str) -> Comparison:
    found = {dataset: _difference(tables, dataset, baseline, other) for dataset in datasets}
    differences = tuple(each for each in found.values() if each is not None)
    missing = tuple(dataset for dataset, each in found.items() if each is None)
    return Comparison(baseline, other, differences, missing)


def _difference(tables: _Tables, dataset: str, baseline: str, other: str) -> Difference | None:
    """The difference on one dataset, or None where no seed has a final value of both."""
    mine, theirs = (tables.ends.get((dataset, method)) for method in (baseline, other))
    if mine is None or theirs is None:
        return None
    shared = mine.index.intersection(theirs.index)
    if len(shared) == 0:
        return None
    lost = (
        len(tables.seeds[dataset, baseline].intersection(theirs.index.difference(shared))),
        len(tables.seeds[dataset, other].intersection(mine.index.difference(shared))),
    )
    mine, theirs = mine.loc[shared], theirs.loc[shared]
    by_seed = mine["test_ll"] - theirs["test_ll"]
    mid, base = mine.median(skipna=False), theirs.median(skipna=False)
    flops, wall = (_times(mid[cost], base[cost]) for cost in ("flops", "wall_s"))
    own, others = tables.checkpoints[dataset, baseline], tables.checkpoints[dataset, other]
    truth = mine["test_ll"] + mine["oracle_gap"]
    near = () if truth.isna().any() else DELTAS
    return Difference(
        dataset,
        dict(zip(map(int, shared), by_seed.tolist(), strict=True)),
        flops,
        wall,
        cost_to_match(own, others, shared),
        cost_to_match(others, own, shared),
        tuple(cost_to_come_near(own, others, truth, distance, shared) for distance in near),
        Decision(None, 1.0, 1.0, "", math.inf),
        lost,
    )


def _times(mine: float, theirs: float) -> float:
    return float(mine / theirs) if theirs > 0 else float("nan")

"""One method against another, dataset by dataset."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.stats.paired import Match, corrected, cost_to_match, interval, p_value, verdict
from bench.stats.summary import final, finished, fitted
from bench.store.schema import RUN

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Margin:
    """How far one method is ahead of another on a dataset, by paired differences over the seeds that both finished.

    Both methods of a pair were fitted and scored on the same data, since each seed is one draw of the data.

    Args:
        dataset: The dataset's label.
        nats: The median over shared seeds of the difference in final test_ll.
        interval: The 95% interval of that median; None for too few seeds.
        seeds: Number of shared seeds.
        flops: The median total FLOPs, divided by the other's.
        wall: The median total wall time, divided by the other's.
        match: The cost to reach the other's final test_ll.
        p: The p-value of the signed-rank test.
        corrected_p: The p-value corrected for all comparisons of the report.
    """

    dataset: str
    nats: float
    interval: tuple[float, float] | None
    seeds: int
    flops: float
    wall: float
    match: Match
    p: float = 1.0
    corrected_p: float = 1.0

    @property
    def verdict(self) -> str:
        """Better, worse or indistinguishable, corrected for the number of comparisons."""
        return verdict(self.interval, self.corrected_p)


@dataclass(frozen=True)
class Comparison:
    """A baseline against another method.

    Args:
        baseline: The baseline's label.
        other: The other method's label.
        margins: One per dataset on which both finished a shared seed.
        missing: The other datasets.
    """

    baseline: str
    other: str
    margins: tuple[Margin, ...]
    missing: tuple[str, ...]

    def having(self, verdict: str) -> list[Margin]:
        """The margins with that verdict."""
        return [margin for margin in self.margins if margin.verdict == verdict]


def pairs(runs: pd.DataFrame, baseline: Collection[str] = ()) -> list[tuple[str, str]]:
    """Which methods are compared: each baseline with each fitted method that is no baseline.

    Args:
        runs: The table of runs, with the column `role`.
        baseline: Labels. If none of them was run, or all fitted methods are baselines, the first fitted method is the
            only baseline.

    Returns:
        Pairs of a baseline and another method.
    """
    methods = fitted(runs)
    chosen = [method for method in methods if method in baseline]
    first = chosen if 0 < len(chosen) < len(methods) else methods[:1]
    return [(one, other) for one in first for other in methods if other not in first]


def comparisons(measurements: pd.DataFrame, runs: pd.DataFrame, baseline: Collection[str] = ()) -> list[Comparison]:
    """The comparisons of a report, each over the seeds that both methods finished.

    The p-values of all margins of all comparisons are corrected together.
    """
    ends = final(measurements, runs).reindex(columns=["test_ll"])
    costs = runs.drop_duplicates(RUN).set_index(RUN).reindex(columns=["flops", "wall_s"]).astype(float)
    rows = finished(measurements, runs)
    tables = _Tables(ends.join(costs), rows[rows["metric"] == "test_ll"])
    datasets = list(runs["dataset"].unique())
    return _corrected([_compare(tables, datasets, *pair) for pair in pairs(runs, baseline)])


def _corrected(found: list[Comparison]) -> list[Comparison]:
    """The comparisons with the p-values of all their margins corrected together."""
    ps = iter(corrected([margin.p for comparison in found for margin in comparison.margins]))
    return [
        replace(each, margins=tuple(replace(margin, corrected_p=next(ps)) for margin in each.margins)) for each in found
    ]


@dataclass(frozen=True)
class _Tables:
    """Final test_ll and total costs by dataset, method and seed, and test_ll at every checkpoint."""

    ends: pd.DataFrame
    checkpoints: pd.DataFrame

    def ends_of(self, dataset: str, method: str) -> pd.DataFrame:
        """The ends of one dataset and method, by seed."""
        index = self.ends.index
        chosen = (index.get_level_values(0) == dataset) & (index.get_level_values(1) == method)
        return self.ends[chosen].droplevel([0, 1])

    def checkpoints_of(self, dataset: str, method: str) -> pd.DataFrame:
        """The checkpoints of one dataset and method."""
        rows = self.checkpoints
        return rows[(rows["dataset"] == dataset) & (rows["method"] == method)]


def _compare(tables: _Tables, datasets: list[str], baseline: str, other: str) -> Comparison:
    found = {dataset: _margin(tables, dataset, baseline, other) for dataset in datasets}
    margins = tuple(margin for margin in found.values() if margin is not None)
    missing = tuple(dataset for dataset, margin in found.items() if margin is None)
    return Comparison(baseline, other, margins, missing)


def _margin(tables: _Tables, dataset: str, baseline: str, other: str) -> Margin | None:
    """The margin on one dataset, or None where no seed was finished by both or a value is NaN."""
    mine, theirs = tables.ends_of(dataset, baseline), tables.ends_of(dataset, other)
    shared = mine.index.intersection(theirs.index)
    mine, theirs = mine.loc[shared], theirs.loc[shared]
    by_seed = mine["test_ll"] - theirs["test_ll"]
    nats = float(by_seed.median(skipna=False))
    if len(shared) == 0 or math.isnan(nats):
        return None
    mid, base = mine.median(skipna=False), theirs.median(skipna=False)
    flops, wall = (_times(mid[cost], base[cost]) for cost in ("flops", "wall_s"))
    match = cost_to_match(tables.checkpoints_of(dataset, baseline), tables.checkpoints_of(dataset, other), shared)
    differences = by_seed.to_list()
    return Margin(dataset, nats, interval(differences), len(shared), flops, wall, match, p_value(differences))


def _times(mine: float, theirs: float) -> float:
    return float(mine / theirs) if theirs > 0 else float("nan")

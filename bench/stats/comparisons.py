"""One method against another, dataset by dataset, and the sentence that says how it went."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from bench.common.units import apart, fraction, listed, number, plural, ratio
from bench.stats.bootstrap import LEAST_SEEDS, bounds, median_of_medians
from bench.stats.paired import (
    BETTER,
    INDISTINGUISHABLE,
    WORSE,
    Match,
    corrected,
    cost_to_match,
    interval,
    p_value,
    verdict,
)
from bench.stats.summary import RUN, final, finished, fitted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Margin:
    """How far one method is ahead of another on a dataset: the median over shared seeds of the difference in test_ll.

    Each seed is one draw of the data, on which both were fitted and scored, so differences are taken seed by seed.

    interval: of that median, at 95%, or None for too few seeds. flops and wall: how many times the other's. match: what
    reaching the other's final test_ll costs. p: of the signed-rank test, and corrected_p for all comparisons made.
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
    """A method against another, on the datasets where they share a finished seed; the rest are `missing`."""

    subject: str
    other: str
    margins: tuple[Margin, ...]
    missing: tuple[str, ...]

    def those(self, verdict: str) -> list[Margin]:
        """The margins of that verdict."""
        return [margin for margin in self.margins if margin.verdict == verdict]


def rivals(methods: list[str]) -> list[tuple[str, str]]:
    """Which pairs to compare: each MAPA method with each other fitted one, or the first with the rest."""
    contenders = fitted(methods)
    family = [method for method in contenders if method.lower().startswith("mapa")]
    subjects = family if 0 < len(family) < len(contenders) else contenders[:1]
    return [(subject, other) for subject in subjects for other in contenders if other not in subjects]


def comparisons(measurements: pd.DataFrame, runs: pd.DataFrame) -> list[Comparison]:
    """The comparisons that `rivals` names, each over the seeds that both methods finished."""
    ends = final(measurements, runs).reindex(columns=["test_ll"])
    costs = runs.drop_duplicates(RUN).set_index(RUN).reindex(columns=["flops", "wall_s"]).astype(float)
    looks = finished(measurements, runs)
    tables = _Tables(ends.join(costs), looks[looks["metric"] == "test_ll"])
    datasets = list(runs["dataset"].unique())
    return _corrected([_compare(tables, datasets, *pair) for pair in rivals(list(runs["method"].unique()))])


def _corrected(found: list[Comparison]) -> list[Comparison]:
    """The comparisons with the p-values of all their margins corrected together."""
    ps = iter(corrected([margin.p for comparison in found for margin in comparison.margins]))
    return [
        replace(each, margins=tuple(replace(margin, corrected_p=next(ps)) for margin in each.margins)) for each in found
    ]


@dataclass(frozen=True)
class _Tables:
    """Final test_ll and total costs by dataset, method and seed, and every look at test_ll."""

    ends: pd.DataFrame
    looks: pd.DataFrame

    def of(self, dataset: str, method: str) -> pd.DataFrame:
        """The ends of one dataset and method, by seed."""
        index = self.ends.index
        chosen = (index.get_level_values(0) == dataset) & (index.get_level_values(1) == method)
        return self.ends[chosen].droplevel([0, 1])

    def looks_at(self, dataset: str, method: str) -> pd.DataFrame:
        """The looks at one dataset and method."""
        return self.looks[(self.looks["dataset"] == dataset) & (self.looks["method"] == method)]


def _compare(tables: _Tables, datasets: list[str], subject: str, other: str) -> Comparison:
    found = {dataset: _margin(tables, dataset, subject, other) for dataset in datasets}
    margins = tuple(margin for margin in found.values() if margin is not None)
    missing = tuple(dataset for dataset, margin in found.items() if margin is None)
    return Comparison(subject, other, margins, missing)


def _margin(tables: _Tables, dataset: str, subject: str, other: str) -> Margin | None:
    """The margin on one dataset, or None where no seed was finished by both or a value is NaN."""
    mine, theirs = tables.of(dataset, subject), tables.of(dataset, other)
    shared = mine.index.intersection(theirs.index)
    mine, theirs = mine.loc[shared], theirs.loc[shared]
    by_seed = mine["test_ll"] - theirs["test_ll"]
    nats = float(by_seed.median(skipna=False))
    if len(shared) == 0 or math.isnan(nats):
        return None
    mid, base = mine.median(skipna=False), theirs.median(skipna=False)
    flops, wall = (_times(mid[cost], base[cost]) for cost in ("flops", "wall_s"))
    match = cost_to_match(tables.looks_at(dataset, subject), tables.looks_at(dataset, other), shared)
    differences = by_seed.to_list()
    return Margin(dataset, nats, interval(differences), len(shared), flops, wall, match, p_value(differences))


def _times(mine: float, theirs: float) -> float:
    return float(mine / theirs) if theirs > 0 else float("nan")


def sentence(comparison: Comparison) -> str:
    """The answer in a sentence, losses named as plainly as wins, then what it costs to do as well as the other."""
    subject, other, margins = comparison.subject, comparison.other, comparison.margins
    if not margins:
        return f"{subject} against {other}: no seed was finished by both, so there is nothing to compare."
    parts = (_verdicts(comparison), f"over {_seeds_shared(margins)}", f"at {_cost(margins)}.")
    return " ".join((f"{subject} is {', '.join(parts)}", *_caveats(comparison), matching(comparison)))


def _verdicts(comparison: Comparison) -> str:
    groups = {name: comparison.those(name) for name in (BETTER, INDISTINGUISHABLE, WORSE)}
    (first, leading), *rest = sorted(groups.items(), key=lambda group: not group[1])
    to = f"{'from' if first == INDISTINGUISHABLE else 'than'} {comparison.other}"
    total = plural(len(comparison.margins), "dataset")
    parts = [f"{first} {to} on {len(leading)} of {total} ({_named(leading)})"]
    parts += [f"{name} on {len(group)} ({_named(group)})" if group else f"{name} on none" for name, group in rest]
    return ", ".join(parts)


def _named(margins: list[Margin]) -> str:
    """'circle +0.100, figure8 +0.200 nats'."""
    return ", ".join(f"{margin.dataset} {apart(margin.nats, None)}" for margin in margins) + " nats"


def _seeds_shared(margins: tuple[Margin, ...]) -> str:
    least, most = min(margin.seeds for margin in margins), max(margin.seeds for margin in margins)
    return plural(most, "seed") if least == most else f"{least} to {most} shared seeds"


def _cost(margins: tuple[Margin, ...]) -> str:
    flops, wall = ([m.flops for m in margins], [m.wall for m in margins])
    return f"{_share(flops)} the FLOPs and {_share(wall)} the wall time"


def _share(ratios: list[float]) -> str:
    """Their median, as in '0.25×'."""
    middle = _middle(ratios)
    return "an unknown share of" if math.isnan(middle) else ratio(middle)


def _middle(ratios: list[float]) -> float:
    """The median of those that are known; NaN where none is."""
    return median([value for value in ratios if not math.isnan(value)] or [math.nan])


def _caveats(comparison: Comparison) -> list[str]:
    notes = []
    if any(margin.interval is None for margin in comparison.margins):
        few = [margin.dataset for margin in comparison.margins if margin.interval is None]
        where = "" if len(few) == len(comparison.margins) else f" on {listed(few)}"
        notes.append(f"Too few seeds for a verdict{where}: {LEAST_SEEDS} are needed.")
    if comparison.missing:
        notes.append(f"Not compared on {listed(list(comparison.missing))}: no seed finished by both.")
    return notes


def matching(comparison: Comparison, who: str = "It") -> str:
    """What it costs the subject to reach the other's final test_ll, where most seeds do."""
    usual = [margin.match for margin in comparison.margins if margin.match.usual]
    target, total = f"{comparison.other}'s final log-likelihood", plural(len(comparison.margins), "dataset")
    if not usual:
        return f"{who} reaches {target} on none of {total}."
    flops = _part([match.flops_ratios for match in usual])
    wall = _part([match.wall_ratios for match in usual])
    return f"{who} reaches {target} with {flops} of the FLOPs and {wall} of the wall time on {len(usual)} of {total}."


def _part(ratios: list[tuple[float, ...]]) -> str:
    """The median over datasets of the medians over seeds, with its interval: '1/23 [1/31, 1/17]'."""
    samples = [np.asarray(each, dtype=float) for each in ratios]
    low, high = bounds(samples, median_of_medians)
    middle = fraction(float(median_of_medians(*samples)))
    if np.isnan(np.concatenate(samples)).any():
        return "an unknown part"
    return middle if np.isnan(low) else f"{middle} [{fraction(float(low))}, {fraction(float(high))}]"


def alone(method: str, table: pd.DataFrame) -> str:
    """What can be said of the only fitted method of a study, from its rows of the summary."""
    rows = table[table["method"] == method]
    gaps = rows.reindex(columns=["oracle_gap_median"])["oracle_gap_median"].dropna()
    if gaps.empty:
        return f"{method} is the only fitted method here, and it finished no seed."
    seeds, over = plural(int(rows["seeds_done"].max()), "seed"), plural(len(gaps), "dataset")
    return (
        f"{method} is the only fitted method here, so there is nothing to compare it with. Over {seeds} "
        f"it ends {number(gaps.median())} nats below the true model (median over {over})."
    )


def answers(measurements: pd.DataFrame, runs: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """The sentences that open the report."""
    return told(comparisons(measurements, runs), runs, table)


def told(found: list[Comparison], runs: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """A sentence for each comparison or, where there is none, what else can be said."""
    if found:
        return [sentence(comparison) for comparison in found]
    contenders = fitted(list(runs["method"].unique()))
    return [alone(contenders[0], table)] if contenders else ["No method that fits anything was run."]

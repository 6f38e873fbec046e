"""One method against another, dataset by dataset, and the sentence that says how it went."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from bench.report.format import difference, listed, number, plural, ratio
from bench.report.summary import CELL, final, fitted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Margin:
    """How far one method is ahead of another on a dataset: the median over shared seeds of the difference in test_ll.

    Each seed is one draw of the data, on which both were fitted and scored, so differences are taken seed by seed.

    agree: whether the difference has the same sign on every seed. flops and wall: how many times the other's.
    """

    dataset: str
    nats: float
    seeds: int
    agree: bool
    flops: float
    wall: float


@dataclass(frozen=True)
class Comparison:
    """A method against another, on the datasets where they share a finished seed; the rest are `missing`."""

    subject: str
    other: str
    margins: tuple[Margin, ...]
    missing: tuple[str, ...]

    @property
    def ahead(self) -> list[Margin]:
        """The margins on which the subject is ahead."""
        return [margin for margin in self.margins if margin.nats > 0]

    @property
    def behind(self) -> list[Margin]:
        """The margins on which the subject is behind."""
        return [margin for margin in self.margins if margin.nats < 0]


def rivals(methods: list[str]) -> list[tuple[str, str]]:
    """Which pairs to compare: each MAPA method with each other fitted one, or the first with the rest."""
    contenders = fitted(methods)
    family = [method for method in contenders if method.lower().startswith("mapa")]
    subjects = family if 0 < len(family) < len(contenders) else contenders[:1]
    return [(subject, other) for subject in subjects for other in contenders if other not in subjects]


def comparisons(measurements: pd.DataFrame, cells: pd.DataFrame) -> list[Comparison]:
    """The comparisons that `rivals` names, each over the seeds that both methods finished."""
    ends = final(measurements, cells).reindex(columns=["test_ll"])
    costs = cells.drop_duplicates(CELL).set_index(CELL).reindex(columns=["flops", "wall_s"]).astype(float)
    ends = ends.join(costs)
    datasets = list(cells["dataset"].unique())
    return [_compare(ends, datasets, *pair) for pair in rivals(list(cells["method"].unique()))]


def _compare(ends: pd.DataFrame, datasets: list[str], subject: str, other: str) -> Comparison:
    found = {dataset: _margin(ends, dataset, subject, other) for dataset in datasets}
    margins = tuple(margin for margin in found.values() if margin is not None)
    missing = tuple(dataset for dataset, margin in found.items() if margin is None)
    return Comparison(subject, other, margins, missing)


def _margin(ends: pd.DataFrame, dataset: str, subject: str, other: str) -> Margin | None:
    """The margin on one dataset, or None where no seed was finished by both or a value is NaN."""
    mine, theirs = _seeds(ends, dataset, subject), _seeds(ends, dataset, other)
    shared = mine.index.intersection(theirs.index)
    mine, theirs = mine.loc[shared], theirs.loc[shared]
    by_seed = mine["test_ll"] - theirs["test_ll"]
    mid, base = mine.median(skipna=False), theirs.median(skipna=False)
    nats = float(by_seed.median(skipna=False))
    if len(shared) == 0 or math.isnan(nats):
        return None
    agree = any(bool(same.all()) for same in (by_seed > 0, by_seed < 0, by_seed == 0))
    return Margin(dataset, nats, len(shared), agree, *(_times(mid[c], base[c]) for c in ("flops", "wall_s")))


def _times(mine: float, theirs: float) -> float:
    return float(mine / theirs) if theirs > 0 else float("nan")


def _seeds(ends: pd.DataFrame, dataset: str, method: str) -> pd.DataFrame:
    """The rows of one dataset and method, by seed."""
    index = ends.index
    chosen = (index.get_level_values(0) == dataset) & (index.get_level_values(1) == method)
    return ends[chosen].droplevel([0, 1])


def sentence(comparison: Comparison) -> str:
    """The answer in a sentence, losses named as plainly as wins, then what qualifies it."""
    subject, other, margins = comparison.subject, comparison.other, comparison.margins
    if not margins:
        return f"{subject} against {other}: no seed was finished by both, so there is nothing to compare."
    parts = (f"over {_seeds_shared(margins)}", f"at {_cost(margins)}.")
    return " ".join((f"{subject} is {_verdict(comparison)},", ", ".join(parts), *_caveats(comparison)))


def _verdict(comparison: Comparison) -> str:
    margins, other = comparison.margins, comparison.other
    level = [margin for margin in margins if margin.nats == 0]
    groups = (("ahead of", comparison.ahead), ("behind", comparison.behind), ("level with", level))
    (words, first), *rest = [(words, group) for words, group in groups if group]
    parts = [f"{words} {other} on {len(first)} of {plural(len(margins), 'dataset')} ({_named(first)})"]
    parts += [f"{words.split()[0]} on {len(group)} ({_named(group)})" for words, group in rest]
    return listed(parts)


def _named(margins: list[Margin]) -> str:
    """'circle +0.1, figure8 +0.2 nats', or names alone where the margins are nil."""
    if all(margin.nats == 0 for margin in margins):
        return ", ".join(margin.dataset for margin in margins)
    return ", ".join(f"{margin.dataset} {difference(margin.nats)}" for margin in margins) + " nats"


def _seeds_shared(margins: tuple[Margin, ...]) -> str:
    least, most = min(margin.seeds for margin in margins), max(margin.seeds for margin in margins)
    return plural(most, "seed") if least == most else f"{least} to {most} shared seeds"


def _cost(margins: tuple[Margin, ...]) -> str:
    parts = []
    for name, values in (("FLOPs", [m.flops for m in margins]), ("wall time", [m.wall for m in margins])):
        known = [value for value in values if not math.isnan(value)]
        parts.append(f"{ratio(median(known))} the {name}" if known else f"an unknown share of the {name}")
    return listed(parts)


def _caveats(comparison: Comparison) -> list[str]:
    notes = []
    split = [margin.dataset for margin in comparison.margins if margin.seeds > 1 and not margin.agree]
    if split:
        notes.append(f"The seeds disagree on {listed(split)}.")
    if all(margin.seeds == 1 for margin in comparison.margins):
        notes.append("One seed says nothing of the spread.")
    if comparison.missing:
        notes.append(f"Not compared on {listed(list(comparison.missing))}: no seed finished by both.")
    return notes


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


def answers(measurements: pd.DataFrame, cells: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """The sentences that open the report."""
    found = comparisons(measurements, cells)
    if found:
        return [sentence(comparison) for comparison in found]
    contenders = fitted(list(cells["method"].unique()))
    return [alone(contenders[0], table)] if contenders else ["No method that fits anything was run."]

"""What comparisons show, in sentences, for the report and the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.common.units import listed, number, percent, plural, ratio, with_interval
from bench.config.schema import MARGIN
from bench.stats.bootstrap import LEAST_SEEDS
from bench.stats.comparisons import Comparison, CostRatio, Difference, comparisons
from bench.stats.estimates import aggregate
from bench.stats.matching import SLACK
from bench.stats.power import MOST_SEEDS, least_effect, least_margin
from bench.stats.summary import learners
from bench.stats.verdicts import EQUIVALENT, UNDECIDED, VERDICTS, WORSE

if TYPE_CHECKING:
    import pandas as pd

TOO_FEW = "too few seeds"
MANY = 3  # comparisons, above which a table replaces sentences
MANY_LOSSES = 6  # above which a sentence does not name the datasets


def answers(
    measurements: pd.DataFrame,
    runs: pd.DataFrame,
    table: pd.DataFrame,
    baseline: Collection[str] = (),
    margin: float = MARGIN,
) -> list[str]:
    """The sentences that open the report.

    Args:
        measurements: The table of measurements.
        runs: The table of runs.
        table: The summary, as `bench.stats.summary.summary` returns it.
        baseline: The methods that are compared with every other one.
        margin: Differences within it do not matter, in nats.
    """
    found = comparisons(measurements, runs, baseline, margin)
    if len(found) > MANY:
        return overview(found, aggregate(measurements, runs).to_dict("records"))
    return summary_sentences(found, runs, table)


def losses_first(found: Iterable[Comparison]) -> list[Comparison]:
    """The comparisons in which the baseline is worse somewhere, the most such datasets first, and then the others."""
    return sorted(found, key=lambda comparison: -len(comparison.having(WORSE)))


def summary_sentences(found: Sequence[Comparison], runs: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """A paragraph per comparison, losses first; without any, what the study says about its only fitted method."""
    if found:
        return [sentence(comparison) for comparison in losses_first(found)]
    methods = learners(runs)
    return [alone(methods[0], table)] if methods else ["No method was fitted in this study."]


def sentence(comparison: Comparison) -> str:
    """The verdicts on each dataset, the cost of whole fits, and the costs to reach the other's final quality."""
    baseline, other, differences = comparison.baseline, comparison.other, comparison.differences
    if not differences:
        return f"{baseline} against {other}: no seed was finished by both, so there is nothing to compare."
    first = f"{baseline} is {_verdicts(comparison)}, over {_shared_seeds(differences)}."
    whole = f"Its fits take {_costs(differences)}."
    return " ".join((first, *_caveats(comparison), whole, *matching(comparison)))


def _verdicts(comparison: Comparison) -> str:
    groups = [(name, comparison.having(name)) for name in VERDICTS]
    (first, leading), *rest = sorted(groups, key=lambda group: not group[1])
    to = {EQUIVALENT: "to", UNDECIDED: "against"}.get(first, "than")
    total = plural(len(comparison.differences), "dataset")
    parts = [f"{first} {to} {comparison.other} on {len(leading)} of {total} ({_differences(leading)})"]
    parts += [f"{name} on {len(group)} ({_differences(group)})" for name, group in rest if group]
    none = [name for name, group in rest if not group and name != UNDECIDED]
    return ", ".join([*parts, *([f"{listed(none).replace(' and ', ' or ')} on none"] if none else [])])


def _differences(found: Sequence[Difference]) -> str:
    """'circle +0.100, figure8 +0.200 nats'."""
    return ", ".join(f"{each.dataset} {with_interval(each.nats, None)}" for each in found) + " nats"


def _shared_seeds(found: Sequence[Difference]) -> str:
    low, high = min(each.seeds for each in found), max(each.seeds for each in found)
    return plural(high, "seed") if low == high else f"{low} to {high} shared seeds"


def _costs(found: Sequence[Difference]) -> str:
    flops, wall = ([each.flops for each in found], [each.wall for each in found])
    return f"{_share(flops)} the FLOPs and {_share(wall)} the wall time"


def _share(ratios: Sequence[float]) -> str:
    """The median of the known ratios, and the lowest and the highest: '0.25× (0.1× to 0.5×)'."""
    known = [value for value in ratios if not math.isnan(value)]
    if not known:
        return "an unknown share of"
    low, middle, high = ratio(min(known)), ratio(median(known)), ratio(max(known))
    return middle if low == high else f"{middle} ({low} to {high} by dataset)"


def _caveats(comparison: Comparison) -> list[str]:
    notes = []
    few = [each.dataset for each in comparison.differences if each.interval is None]
    if few:
        where = "" if len(few) == len(comparison.differences) else f" on {listed(few)}"
        notes.append(f"Too few seeds for a verdict{where}: {LEAST_SEEDS} are needed.")
    open_ = [each for each in comparison.having(UNDECIDED) if each.interval is not None]
    if open_:
        texts = [f"{each.dataset} {needed(each)}" for each in open_]
        notes.append(f"Seeds with which a new study would decide, roughly, with probability 0.8: {listed(texts)}.")
    if comparison.missing:
        notes.append(f"Not compared on {listed(list(comparison.missing))}: no seed was finished by both.")
    lost = [
        f"{plural(count, 'seed')} of {method} on {each.dataset}"
        for each in comparison.differences
        for method, count in zip((comparison.baseline, comparison.other), each.lost, strict=True)
        if count
    ]
    if lost:
        notes.append(f"Seeds without a result are left out, which favours the method that has none: {listed(lost)}.")
    return notes


def needed(difference: Difference) -> str:
    """About with how many seeds a new study would decide, rounded to two digits."""
    seeds = difference.decision.needed
    return f"over {MOST_SEEDS}" if math.isinf(seeds) else f"about {float(f'{seeds:.2g}'):g}"


def matching(comparison: Comparison) -> list[str]:
    """What it costs each method to reach the other's final test_ll, less a slack, over all datasets."""
    return [
        _reaches(comparison.baseline, comparison.other, comparison.match),
        _reaches(comparison.other, comparison.baseline, comparison.back),
    ]


def _reaches(method: str, other: str, cost: CostRatio) -> str:
    """What it costs a method to reach another's final test_ll."""
    target = f"{other}'s final log-likelihood less {SLACK:g} nats"
    if not cost.reached:
        return f"{method} never reaches {target}, on {_of('any', cost.datasets)}."
    half = "at half of the seeds or more"
    if len(cost.missed) == cost.datasets:
        runs = f"{cost.reached} of {plural(cost.runs, 'run')}"
        return f"{method} misses {target} {half} on {_of('each', cost.datasets)}; {runs} reach it."
    flops, wall = _part(cost.flops, cost.flops_interval), _part(cost.wall, cost.wall_interval)
    over = f"median over {plural(cost.datasets, 'dataset')}"
    where = listed(list(cost.missed))
    if math.isinf(cost.flops):
        interval = f"; its 95% interval begins at {least} the FLOPs of {other}" if (least := _least(cost)) else ""
        why = f"so that its median cost is infinite ({over}{interval})"
        return f"{method} does not reach {target} {half} on {where}, {why}."
    missed = f"infinite on {where}, where it misses it {half}" if where else ""
    share = f"{other} first has it after {percent(cost.passage)} of its FLOPs" if math.isfinite(cost.passage) else ""
    return (
        f"{method} reaches {target} at {flops} the FLOPs and {wall} the wall time that {other} needs for it "
        f"({'; '.join(filter(None, (over, share, missed)))})."
    )


def _of(which: str, datasets: int) -> str:
    """'each of 5 datasets', 'the one dataset'."""
    return "the one dataset" if datasets == 1 else f"{which} of {plural(datasets, 'dataset')}"


def _least(cost: CostRatio) -> str:
    """The lower end of the interval of a ratio of FLOPs; empty if it is not finite."""
    return ratio(cost.flops_interval[0]) if math.isfinite(cost.flops_interval[0]) else ""


def _part(middle: float, interval: tuple[float, float]) -> str:
    """A ratio with its interval: '0.043× [0.032×, never]'."""
    if math.isnan(middle):
        return "an unknown share of"
    low, high = map(ratio, interval)
    return ratio(middle) if math.isnan(interval[0]) else f"{ratio(middle)} [{low}, {high}]"


def reach(seeds: int, count: int, margin: float) -> list[str]:
    """What the verdicts of a report can find, before it is made.

    Args:
        seeds: The number of seeds.
        count: The number of comparisons, by pair of methods and dataset.
        margin: Differences within it do not matter, in nats.
    """
    if not count:
        return ["Nothing is compared: at least two methods that learn are needed."]
    effect = least_effect(seeds, count)
    found = [f"{plural(count, 'comparison')}, by pair of methods and dataset; verdicts are corrected for all of them."]
    if math.isinf(effect):
        return [*found, f"{plural(seeds, 'seed')} can decide nothing: {LEAST_SEEDS} are needed."]
    found.append(
        f"With {seeds} seeds a difference of {effect:.2g} standard deviations (sd, over seeds) is found with "
        "probability 0.8."
    )
    if margin:
        found.append(
            f"Two methods that are alike are then found equivalent, within {margin:g} nats, if their differences have "
            f"a standard deviation of at most {margin / least_margin(seeds, count):.2g} nats."
        )
    return found


def alone(method: str, table: pd.DataFrame) -> str:
    """The distance to the true model of the only fitted method, from its rows of the summary."""
    rows = table[table["method"] == method]
    gaps = rows.reindex(columns=["oracle_gap_median"])["oracle_gap_median"].dropna()
    if gaps.empty:
        known = rows.reindex(columns=["dataset", "test_ll_median"]).dropna().itertuples(index=False)
        ends = [f"{number(value)} on {dataset}" for dataset, value in known]
        told = f"its median test log-likelihood is {listed(ends)}; the true model is not known." if ends else ""
    else:
        over = f"median over {plural(len(gaps), 'dataset')}"
        told = f"it ends {number(gaps.median())} nats below the true model ({over})."
    seeds = int(rows["seeds_done"].max()) if len(rows) else 0
    done = f"Over {plural(seeds, 'seed')} {told}" if seeds else "It finished no seed."
    return f"{method} is the only fitted method here, so there is nothing to compare it with. {done}"


def verdict_of(difference: Difference) -> str:
    """The verdict on a dataset; `TOO_FEW` if there are too few seeds for one."""
    return difference.verdict if difference.interval else TOO_FEW


def overview(found: Sequence[Comparison], means: Sequence[Mapping[Hashable, Any]]) -> list[str]:
    """Many comparisons in a few sentences: the losses and wins of each baseline, and the mean gaps.

    Args:
        found: The comparisons.
        means: The mean gap of each method over datasets, as rows of `bench.stats.estimates.aggregate`.
    """
    sentences = []
    for baseline in dict.fromkeys(each.baseline for each in found):
        own = [each for each in found if each.baseline == baseline]
        counts = Counter(verdict_of(difference) for each in own for difference in each.differences)
        total = counts.total() - counts[TOO_FEW]
        if total:
            words = [f"{name} in {counts[name]}" for name in VERDICTS]
            losses = _losses(own)
            lead = f"{baseline} is worse than {listed(losses)}." if losses else f"None is found better than {baseline}."
            text = f"In {plural(total, 'comparison')} by method and dataset it is {', '.join(words)}."
            sentences.append(" ".join([lead, text, *_behind(own)]))
        elif counts:
            sentences.append(f"{baseline}: too few seeds for a verdict; {LEAST_SEEDS} are needed.")
    known = sorted((row for row in means if math.isfinite(row["mean"])), key=lambda row: float(row["mean"]))
    if len(known) > 1:
        gaps = listed([f"{row['method']} {number(row['mean'])}" for row in known])
        sentences.append(f"Mean oracle gap over datasets, in nats: {gaps}.")
    return sentences


def _losses(found: Sequence[Comparison]) -> list[str]:
    """Whom a baseline is worse than, and where; by how many datasets and how much, where that would be a long list."""
    losses = [(each.other, lost) for each in found if (lost := each.having(WORSE))]
    if sum(len(lost) for _, lost in losses) <= MANY_LOSSES:
        return [f"{other} ({_differences(lost)})" for other, lost in losses]
    losses.sort(key=lambda each: -len(each[1]))
    (first, of_first), *rest = losses
    told = [f"{first} on {plural(len(of_first), 'dataset')} (by up to {_most(of_first)} nats)"]
    return told + [f"{other} on {len(lost)} ({_most(lost)})" for other, lost in rest]


def _most(lost: Sequence[Difference]) -> str:
    return number(max(-difference.nats for difference in lost))


def _behind(found: Sequence[Comparison]) -> list[str]:
    """Whom a baseline is behind on most datasets, in words: many differences may each be undecided."""
    counts = [(each.other, sum(d.nats < 0 for d in each.differences), len(each.differences)) for each in found]
    most = sorted(
        (each for each in counts if each[2] > 1 and 2 * each[1] > each[2]), key=lambda each: -each[1] / each[2]
    )
    if not most:
        return []
    first, *rest = (f"{other} on {behind} of {count}" for other, behind, count in most)
    return [f"By median differences alone it is behind {listed([f'{first} datasets', *rest])}."]

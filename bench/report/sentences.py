"""All sentences of the report that depend on results. The terminal prints the comparisons too."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.common.units import fraction, listed, number, percent, plural, ratio, with_interval
from bench.config.fields import fields
from bench.config.labels import spell_value
from bench.config.schema import Conditions
from bench.stats.bootstrap import LEAST_SEEDS, bounds, median_of_medians
from bench.stats.comparisons import Comparison, Margin, comparisons
from bench.stats.paired import BETTER, INDISTINGUISHABLE, WORSE
from bench.stats.summary import finished, fitted
from bench.store.schema import RUN

if TYPE_CHECKING:
    import pandas as pd

    from bench.store.study_tables import Study

TOO_FEW = "too few seeds"


# Comparisons


def answers(
    measurements: pd.DataFrame, runs: pd.DataFrame, table: pd.DataFrame, baseline: Collection[str] = ()
) -> list[str]:
    """The sentences that open the report.

    Args:
        measurements: The table of measurements.
        runs: The table of runs.
        table: The summary, as `bench.stats.summary.summary` returns it.
        baseline: The methods that are compared with every other one.
    """
    return summary_sentences(comparisons(measurements, runs, baseline), runs, table)


def summary_sentences(found: Sequence[Comparison], runs: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """One sentence per comparison; without comparisons, what the study says about its only fitted method."""
    if found:
        return [sentence(comparison) for comparison in found]
    methods = fitted(runs)
    return [alone(methods[0], table)] if methods else ["No method was fitted in this study."]


def sentence(comparison: Comparison) -> str:
    """The verdicts on each dataset, the cost of whole fits, and the cost to reach the other's final quality."""
    baseline, other, margins = comparison.baseline, comparison.other, comparison.margins
    if not margins:
        return f"{baseline} against {other}: no seed was finished by both, so there is nothing to compare."
    parts = (_verdicts(comparison), f"over {_shared_seeds(margins)}", f"at {_costs(margins)}.")
    return " ".join((f"{baseline} is {', '.join(parts)}", *_caveats(comparison), matching(comparison)))


def _verdicts(comparison: Comparison) -> str:
    groups = {name: comparison.having(name) for name in (BETTER, INDISTINGUISHABLE, WORSE)}
    (first, leading), *rest = sorted(groups.items(), key=lambda group: not group[1])
    to = f"{'from' if first == INDISTINGUISHABLE else 'than'} {comparison.other}"
    total = plural(len(comparison.margins), "dataset")
    parts = [f"{first} {to} on {len(leading)} of {total} ({_differences(leading)})"]
    parts += [f"{name} on {len(group)} ({_differences(group)})" if group else f"{name} on none" for name, group in rest]
    return ", ".join(parts)


def _differences(margins: Sequence[Margin]) -> str:
    """'circle +0.100, figure8 +0.200 nats'."""
    return ", ".join(f"{margin.dataset} {with_interval(margin.nats, None)}" for margin in margins) + " nats"


def _shared_seeds(margins: Sequence[Margin]) -> str:
    low, high = min(margin.seeds for margin in margins), max(margin.seeds for margin in margins)
    return plural(high, "seed") if low == high else f"{low} to {high} shared seeds"


def _costs(margins: Sequence[Margin]) -> str:
    flops, wall = ([m.flops for m in margins], [m.wall for m in margins])
    return f"{_share(flops)} the FLOPs and {_share(wall)} the wall time"


def _share(ratios: Sequence[float]) -> str:
    """The median of the known ratios, such as '0.25×'."""
    middle = median([value for value in ratios if not math.isnan(value)] or [math.nan])
    return "an unknown share of" if math.isnan(middle) else ratio(middle)


def _caveats(comparison: Comparison) -> list[str]:
    notes = []
    if any(margin.interval is None for margin in comparison.margins):
        few = [margin.dataset for margin in comparison.margins if margin.interval is None]
        where = "" if len(few) == len(comparison.margins) else f" on {listed(few)}"
        notes.append(f"Too few seeds for a verdict{where}: {LEAST_SEEDS} are needed.")
    if comparison.missing:
        notes.append(f"Not compared on {listed(list(comparison.missing))}: no seed was finished by both.")
    return notes


def matching(comparison: Comparison, subject: str = "It") -> str:
    """The cost at which the baseline reaches the other's final test_ll, on the datasets where most seeds reach it."""
    usual = [margin.match for margin in comparison.margins if margin.match.usual]
    target, total = f"{comparison.other}'s final log-likelihood", plural(len(comparison.margins), "dataset")
    if not usual:
        return f"{subject} reaches {target} on none of {total}."
    flops = _part([match.flops_ratios for match in usual])
    wall = _part([match.wall_ratios for match in usual])
    return (
        f"{subject} reaches {target} with {flops} of the FLOPs and {wall} of the wall time on {len(usual)} of {total}."
    )


def _part(ratios: Sequence[tuple[float, ...]]) -> str:
    """The median over datasets of the medians over seeds, with its interval: '1/23 [1/31, 1/17]'."""
    samples = [np.asarray(each, dtype=float) for each in ratios]
    low, high = bounds(samples, median_of_medians)
    middle = fraction(float(median_of_medians(*samples)))
    if np.isnan(np.concatenate(samples)).any():
        return "an unknown part"
    return middle if np.isnan(low) else f"{middle} [{fraction(float(low))}, {fraction(float(high))}]"


def alone(method: str, table: pd.DataFrame) -> str:
    """The distance to the true model of the only fitted method, from its rows of the summary."""
    rows = table[table["method"] == method]
    gaps = rows.reindex(columns=["oracle_gap_median"])["oracle_gap_median"].dropna()
    if gaps.empty:
        return f"{method} is the only fitted method here, and it finished no seed."
    seeds, over = plural(int(rows["seeds_done"].max()), "seed"), plural(len(gaps), "dataset")
    return (
        f"{method} is the only fitted method here, so there is nothing to compare it with. Over {seeds} "
        f"it ends {number(gaps.median())} nats below the true model (median over {over})."
    )


def verdict_of(margin: Margin) -> str:
    """The verdict on a dataset; `TOO_FEW` if there are too few seeds for one."""
    return margin.verdict if margin.interval else TOO_FEW


def overview(found: Sequence[Comparison], ranking: Sequence[Mapping[Hashable, Any]]) -> list[str]:
    """Many comparisons in a few sentences: how often each baseline was better or worse, and the mean ranks."""
    sentences = []
    for baseline in dict.fromkeys(each.baseline for each in found):
        counts = Counter(verdict_of(margin) for each in found if each.baseline == baseline for margin in each.margins)
        total = counts.total() - counts[TOO_FEW]
        if total:
            better = f"{counts[BETTER]} of {total} comparisons, indistinguishable in {counts[INDISTINGUISHABLE]}"
            sentences.append(f"{baseline} is better in {better}, worse in {counts[WORSE]}.")
    if len(ranking) > 1:
        ranks = listed([f"{row['method']} {number(row['rank'], 1)}" for row in ranking])
        sentences.append(f"Mean ranks by test log-likelihood: {ranks}.")
    return sentences


# The study as a whole


def size(study: Study) -> str:
    """The size of the study in a line."""
    counts = (
        (len(study.datasets), "dataset"),
        (len(study.methods), "method"),
        (study.runs["seed"].nunique(), "seed"),
    )
    return " · ".join([*(plural(n, noun) for n, noun in counts), *conditions(study)])


def conditions(study: Study) -> list[str]:
    """The conditions of a study that have words of their own or differ from the default, each in a few words."""
    stated = study.section("settings")
    found = []
    for field in fields(Conditions):
        value = stated.get(field.name)
        words = field.extra.get("report")
        if value is not None and words:
            found.append(words.format(value))
        elif value is not None and spell_value(value) != spell_value(field.default):
            shown = f"{value:g}" if isinstance(value, float) else spell_value(value)
            found.append(f"{field.name.replace('_', ' ')} {shown}")
    return found


def incident(study: Study) -> str:
    """How many runs did not finish; empty if all did."""
    if study.unfinished.empty:
        return ""
    counts = study.unfinished["status"].value_counts(sort=False)
    words = {"timeout": "timed out"}
    parts = [f"{n} {words.get(str(status), status)}" for status, n in counts.items()]
    return (
        f"{len(study.unfinished)} of {plural(len(study.runs), 'run')} did not finish: {listed(parts)}. "
        "Results of their methods are over the other seeds."
    )


def notes(study: Study, paired: bool) -> list[str]:
    """What a reader must know before using a number.

    Args:
        study: The study.
        paired: Whether the report has comparisons.
    """
    found = []
    if paired:
        found.append(
            "Differences are in test log-likelihood on the same data: the median over seeds with a 95% bootstrap "
            "interval. A method is better or worse if the interval excludes zero and the signed-rank test, corrected "
            "for all comparisons in this report, has p of at most 5%. "
            "Cost ratios are of whole fits: the median over datasets."
        )
    if study.runs["concurrent"].fillna(0).astype(bool).any():
        found.append("Some runs ran in parallel, so wall times are contended; compare CPU time and FLOPs instead.")
    if "timed_seed" in study.runs and study.runs["timed_seed"].notna().any():
        found.append(
            "Seconds are those of one fit of each method and dataset with nothing beside it. Other seeds have the "
            "seconds that this fit took for as many FLOPs."
        )
    errors = _final_errors(study)
    if len(errors):
        middle, most = number(errors.median(), 4), number(errors.max(), 4)
        found.append(
            f"Standard error of the final test log-likelihood of fitted methods: median {middle}, maximum {most} nats."
        )
    return [*found, *_side_effects(study)]


def _side_effects(study: Study) -> list[str]:
    """What methods changed in their process, from the notes of their finished runs."""
    if "notes" not in study.runs:
        return []
    done = study.runs[study.runs["status"] == "done"]
    texts = done["notes"].replace("", None)
    counts = (done["method"].astype(str) + ", " + texts).dropna().value_counts(sort=False)
    return [f"{text} ({plural(n, 'run')})." for text, n in zip(counts.index, counts.tolist(), strict=True)]


def _final_errors(study: Study) -> pd.Series:
    """The standard errors of test_ll at the last checkpoint of each finished run of a fitted method."""
    rows = finished(study.measurements, study.runs)
    rows = rows[(rows["metric"] == "test_ll") & rows["method"].isin(fitted(study.runs))]
    last = rows["checkpoint"] == rows.groupby(RUN)["checkpoint"].transform("max")
    return rows.loc[last, "stderr"].dropna()


def true_levels(levels: Mapping[str, float]) -> str:
    """The true model's test log-likelihood on each dataset; empty if none is known."""
    texts = ", ".join(f"{dataset} {number(level)}" for dataset, level in levels.items())
    return f"Test log-likelihood of the true model, in nats: {texts}." if texts else ""


def work_text(kinds: Sequence[tuple[str, float, str]]) -> str:
    """The kinds of work of a method with their shares of its FLOPs."""
    texts = [f"{name} {percent(share)}{' (by formula)' if by == 'formula' else ''}" for name, share, by in kinds]
    return ", ".join(texts) + "."


def aggressive_text(middle: float, low: float, high: float) -> str:
    """The share of steps that train the encoder or the decoder alone: the median, lowest and highest of the runs."""
    over = f"median over runs, {percent(low)} to {percent(high)}"
    return f" Steps of encoder or decoder alone: {percent(middle)} ({over})."


# What does not depend on results, section by section

RANKING = (
    "Left: performance profiles (Dolan & Moré 2002), the share of problems (a dataset at a seed) on which a "
    "method comes within 0.1 nats of the true model at no more than the given multiple of the lowest FLOPs of any "
    "method. Middle and right: the interquartile mean of the final oracle gap over all runs, and the mean rank "
    "by final test log-likelihood, with 95% bootstrap intervals stratified by dataset (Agarwal et al. 2021). A "
    "run that did not finish counts as infinitely bad."
)
TABLE = (
    "Median over finished seeds with its 95% bootstrap interval [low, high]; with fewer than six seeds, the range "
    "lowest … highest. Bold: the best test log-likelihood among fitted methods. –: not measured, or not a "
    "number."
)
INTERACTION = "Each number links to the rows behind it. Each heading sorts."
COMPARISONS = (
    "Difference: the median over shared seeds of the first method's final test log-likelihood minus the second's, "
    "on the same data, with the 95% bootstrap interval of that median. Wall time and FLOPs: the first method's "
    "median total divided by the second's. To match: the cost at which the first method first reaches the "
    "second's final test log-likelihood, divided by the second's cost to reach it (median over seeds), and the "
    "number of seeds that reach it."
)
CURVES = (
    "Lines: the median over seeds of the value at the last checkpoint within each cost. A line begins where every "
    "seed has a checkpoint; its marker is where the last seed ended. The band shows the lowest and the highest "
    "seed, or, with more than six methods, a bar at the marker. Dashed: the true model."
)
TARGETS = (
    "The median cost at which the oracle gap is first at most the given value, its 95% interval, and the number "
    "of seeds observed to reach it. Other seeds are censored at their total cost (Kaplan & Meier 1958); this "
    "assumes non-informative censoring. inf: half of the seeds or more were not observed to reach it."
)
LOSSES = (
    "Compared with the true model a method loses by its generative model (oracle gap). Its ELBO also loses by the "
    "family of q(z|x) (approximation gap) and by the choice of q within the family (amortisation gap). Bars: the "
    "median over seeds of each part; the number is their sum. Parts below zero, which can occur by chance, have "
    "no length. Ticks: the sum of each seed. ▸: the bar extends beyond the axis."
)
OTHERS = (
    "Values at the end of each fit. The oracle gap, approximation gap and amortisation gap separate the "
    "loss by the generative model, by the family of q(z|x), and by the choice of q within the family."
)
INDEX_POSTERIORS = (
    "Which training point's code generated x? x is one of four training points, whose codes have the ranks 1/8, "
    "3/8, 5/8 and 7/8. Shaded: the true model's posterior over the codes of all training points. Dots: the "
    "method's. Dashed: the true model's if it does not know the codes (the floor). Shade and lines are means over "
    "nine neighbours along the code, to show the trend; divergences use the probabilities themselves."
)
SIGNALS = (
    "What is x without its noise? x is one of four test points (crosses), whose first coordinates have the ranks "
    "1/8, 3/8, 5/8 and 7/8. Large points: 64 equally weighted points of f(z) under the true posterior. Small "
    "points: the same of the learned decoder under q(z|x). They are in data space, where all methods are "
    "comparable. The panels of a column have the same limits. W2: the distance between both sets in all data "
    "dimensions, in data units, followed by the share of the method's points outside the panel. For three data "
    "dimensions, a column shows the two in which the true signals and x vary most."
)
DENSITIES = (
    "All panels show the same seed. The colour scale ends at the true model's peak; higher densities have the "
    "colour of the peak."
)
WORK = (
    "Every operator that torch runs is counted; work outside torch is charged by formula. Shares are of the FLOPs "
    "of all runs of a method. Kinds below 0.1 % are only in work.csv."
)
ALL_FINISHED = "Every run finished."
NO_REASON = "no reason given"
RUN_AGAIN = "To run it again:"
FILES = {
    "measurements.parquet": "the metrics of every run at every checkpoint, one metric per row",
    "diagnostics.parquet": "diagnostics of the estimators of metrics: numerical errors, effective sample sizes",
    "work.parquet": "FLOPs by kind of work, counted or charged by formula",
    "runs.parquet": "one row per dataset, method and seed, with status, conditions and total cost",
    "posteriors.parquet": "index posteriors of four training points: true model, floor, methods",
    "signals.parquet": "draws of the noiseless signal of four test points: true model, methods",
    "densities.parquet": "true and learned log densities on a grid, for two-dimensional data",
    "study.json": "settings, provenance and the command",
    "study.toml": "the settings as a file, for `python -m bench run`",
    "log.txt": "when each command began and ended, and the status of each run, in UTC",
    "figures/": "every figure as SVG",
    "report.md": "this report as Markdown",
    "report.html": "this report as one HTML file",
}

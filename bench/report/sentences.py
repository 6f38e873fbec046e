"""All sentences of the report that depend on results. The terminal prints the comparisons too."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.common.units import listed, number, percent, plural, ratio, with_interval
from bench.config.fields import fields
from bench.config.labels import spell_value
from bench.config.schema import MARGIN, Conditions
from bench.stats.bootstrap import LEAST_SEEDS
from bench.stats.comparisons import Comparison, CostRatio, Difference, comparisons
from bench.stats.estimates import aggregate
from bench.stats.matching import SLACK
from bench.stats.power import MOST_SEEDS, least_effect, least_margin
from bench.stats.summary import finished, fitted
from bench.stats.verdicts import EQUIVALENT, UNDECIDED, VERDICTS, WORSE
from bench.store.schema import LEARNS, RUN

if TYPE_CHECKING:
    import pandas as pd

    from bench.store.study_tables import Study

BORROWED = "†"
TOO_FEW = "too few seeds"
UNUSUAL = 20  # times the median standard error of its dataset, above which a run is named
MANY = 3  # comparisons, above which a table replaces sentences


# Comparisons


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
    methods = fitted(runs)
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
            losses = [f"{each.other} ({_differences(lost)})" for each in own if (lost := each.having(WORSE))]
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
    families = {each.get("likelihood", "gaussian") for each in study.section("datasets").values()} or {"gaussian"}
    found = []
    for field in fields(Conditions):
        if field.name == "observation_noise" and "gaussian" not in families:
            continue
        words = field.extra.get("report")
        value = stated.get(field.name)
        if value is None and words and field.name in study.runs:  # each dataset has its own
            value = " or ".join(map(str, sorted(study.runs[field.name].unique())))
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
    text = f"{len(study.unfinished)} of {plural(len(study.runs), 'run')} did not finish: {listed(parts)}."
    pairs = study.runs["method"] + " on " + study.runs["dataset"]
    done = (study.runs["status"] == "done").groupby(pairs, sort=False).any()
    none = [str(pair) for pair in done.index[~done]]
    if none:
        text += f" No run finished of {listed(none)}."
    return text if len(none) == len(done) else f"{text} Other results are over the seeds that finished."


def endings(runs: pd.DataFrame) -> str:
    """Which fits a limit of the study ended, and which their own rule; empty if there was no limit."""
    done = runs[(runs["status"] == "done") & runs["role"].isin(LEARNS)]
    stopped = done["stopped_by"] != ""
    if not stopped.any():
        return ""
    counts = stopped.groupby(done["method"], sort=False).agg(["sum", "size"])
    texts = [f"{method} {of['sum']} of {of['size']}" for method, of in counts.iterrows() if of["sum"]]
    own = "" if stopped.all() else " All other fits ended by their method's own rule."
    return f"The budget ended these fits: {', '.join(texts)}.{own}"


def borrowed(sources: Mapping[str, str]) -> list[str]:
    """Where runs that were not made for the study are from, by method: each source once."""
    return [f"{BORROWED} Not run here, but borrowed from {source}." for source in dict.fromkeys(sources.values())]


def pooled(seeds_of: Mapping[str, list[str]]) -> list[str]:
    """Where a comparison takes seeds of several studies together, by dataset; nothing if nowhere."""
    by_studies: dict[str, list[str]] = {}
    for dataset, studies in seeds_of.items():
        by_studies.setdefault(listed(studies), []).append(dataset)
    return [
        f"Seeds of {studies} are taken together on {listed(on)}. The verdicts there hold only if these studies were "
        "planned together. If one was begun because of what another showed, report each of them alone."
        for studies, on in by_studies.items()
    ]


def notes(study: Study, table: pd.DataFrame, paired: bool) -> list[str]:
    """What a reader must know before using a number.

    Args:
        study: The study.
        table: Its summary, as `bench.stats.summary.summary` returns it.
        paired: Whether the report has comparisons.
    """
    found = []
    if paired:
        found.append(
            "Differences are in test log-likelihood on the same data: the median over seeds with a 95% bootstrap "
            "interval. A method is better or worse if the interval excludes zero and equivalent if it lies within "
            f"{study.margin:g} nats of zero, each only if a test by sign flips, corrected for all comparisons in this "
            "report, has p of at most 5%. Everything else is undecided. "
            "Costs of whole fits are the median over datasets."
        )
    found += pooled(study.pooled)
    found += borrowed(study.borrowed)
    if ended := endings(study.runs):
        found.append(ended)
    if few := tails(table, study.margin):
        found.append(few)
    done = _done(study)
    made_here = ~done["method"].isin([*study.borrowed])
    if (done["concurrent"].fillna(0).astype(bool) & made_here).any():
        found.append("Some runs ran in parallel: their wall times are contended, and no ratio of them is given.")
    if "timed_seed" in study.runs and study.runs["timed_seed"].notna().any():
        found.append(
            "Seconds are those of one fit of each method and dataset with nothing beside it. Other seeds have the "
            "seconds that this fit took for as many FLOPs."
        )
    found += accuracy(_final_errors(study))
    return [*found, *_side_effects(study)]


def tails(table: pd.DataFrame, margin: float) -> str:
    """Where the worst 1 % of test points make more than half of a mean oracle gap; empty if nowhere.

    Args:
        table: The summary, as `bench.stats.summary.summary` returns it.
        margin: Gaps up to it do not matter, in nats.
    """
    columns = ["dataset", "method", "role", "oracle_gap_median", "oracle_gap_worst_median", "oracle_gap_trimmed_median"]
    known = table.reindex(columns=columns)
    known = known[known["role"].isin(LEARNS) & (known["oracle_gap_median"] > margin)]
    known = known[known["oracle_gap_worst_median"] > known["oracle_gap_median"] / 2]
    if known.empty:
        return ""
    texts = [
        f"{method} on {dataset} (oracle gap {number(gap)}, of which the worst 1 % make {number(worst)}; without 1 % at "
        f"each end {number(trimmed)})"
        for dataset, method, _, gap, worst, trimmed in known.itertuples(index=False)
    ]
    return f"Few test points make more than half of a gap: {listed(texts)}. Medians over seeds, in nats."


def _done(study: Study) -> pd.DataFrame:
    """The finished runs."""
    return study.runs[study.runs["status"] == "done"]


def _side_effects(study: Study) -> list[str]:
    """What methods changed in their process, from the notes of their finished runs."""
    if "notes" not in study.runs:
        return []
    done = _done(study)
    texts = done["notes"].replace("", None)
    counts = (done["method"].astype(str) + ", " + texts).dropna().value_counts(sort=False)
    return [f"{text} ({plural(n, 'run')})." for text, n in zip(counts.index, counts.tolist(), strict=True)]


def accuracy(errors: pd.Series) -> list[str]:
    """How well the final test log-likelihood is known, and where it is not.

    Args:
        errors: The standard error of each run in nats, with an index of dataset, method and seed.
    """
    if errors.empty:
        return []
    middle = errors.median()
    usual = (
        f"Standard error of the final test log-likelihood of fitted methods: median {number(middle, 4)} nats. It "
        "includes the choice of test points, which paired differences share."
    )
    seeds: dict[str, list[str]] = {}
    of_dataset = errors.groupby("dataset").transform("median")
    for dataset, method, seed in errors.index[errors > UNUSUAL * of_dataset].to_list():
        seeds.setdefault(f"{method} on {dataset}", []).append(str(seed))
    wrong = [f"{where} (seed {', '.join(of)})" for where, of in seeds.items()]
    if not wrong:
        return [usual]
    where = f"It is over {UNUSUAL} times the median of its dataset for {listed(wrong)}"
    return [usual, f"{where}: there the mean rests on a few points."]


def _final_errors(study: Study) -> pd.Series:
    """The standard errors of test_ll at the last checkpoint of each finished run of a fitted method."""
    rows = finished(study.measurements, study.runs)
    rows = rows[(rows["metric"] == "test_ll") & rows["method"].isin(fitted(study.runs))]
    last = rows["checkpoint"] == rows.groupby(RUN)["checkpoint"].transform("max")
    return rows[last].set_index(RUN)["stderr"].dropna()


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

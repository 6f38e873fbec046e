"""What a study as a whole is and what a reader must know before using its numbers, in sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from bench.common.units import listed, number, percent, plural
from bench.config.fields import fields
from bench.config.labels import spell_value
from bench.config.schema import Conditions
from bench.stats.summary import finished, learners
from bench.store.schema import LEARNS, RUN

if TYPE_CHECKING:
    import pandas as pd

    from bench.store.study_tables import Study

BORROWED = "†"
UNUSUAL = 20  # times the median standard error of its dataset, above which a run is named


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
    about = study.section("datasets").values()
    families = {each.get("likelihood", "gaussian") for each in about} or {"gaussian"}
    found = []
    for field in fields(Conditions):
        if field.name == "observation_noise" and "gaussian" not in families:
            continue
        words = field.extra.get("report")
        value = stated.get(field.name)
        counted = {each["test_points"] for each in about if "test_points" in each}
        if field.name == "n_test" and counted:  # a dataset may have fewer than asked
            value = " or ".join(map(str, sorted(counted)))
        elif value is None and words and field.name in study.runs:  # each dataset has its own
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


def marked(method: str, sources: Collection[str]) -> str:
    """A method as tables show it: with a mark if its runs were borrowed.

    Args:
        method: Its label.
        sources: The methods with borrowed runs.
    """
    return f"{method} {BORROWED}" if method in sources else method


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
    rows = rows[(rows["metric"] == "test_ll") & rows["method"].isin(learners(study.runs))]
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

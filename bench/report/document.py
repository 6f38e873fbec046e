"""What the page says, taken from a study's tables; the templates only lay it out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from bench.common import units
from bench.report.citations import cited
from bench.report.hyperparameters import settings_used
from bench.report.tables import TOO_FEW, compared, groups, places, reached, verdict_of
from bench.stats.comparisons import Comparison, comparisons, matching, sentence, told
from bench.stats.cost_to_target import TOLD
from bench.stats.paired import BETTER, INDISTINGUISHABLE, WORSE
from bench.stats.summary import RUN, UNFITTED, finished, fitted, metric_names, work_shares
from bench.store.schema import COSTS, MAIN_METRICS, MEMORY, PAIRED, Definition, define
from bench.store.study_tables import Study

LEAST_SHARE = 1e-3
SIGNS = {BETTER: "▲", INDISTINGUISHABLE: "≈", WORSE: "▼", TOO_FEW: "?"}
CONTAINED = "(?:not )?contained: "  # as bench.process.containment begins what it tells


def statements(study: Study, table: pd.DataFrame) -> dict[str, Any]:
    """Everything the templates name except the figures; table is the study's summary."""
    metrics = _metrics(study.measurements)
    found = comparisons(study.measurements, study.runs)
    paired = [*PAIRED] if any(comparison.margins for comparison in found) else []
    placed = places(study)
    return {
        "study": study,
        "references": cited(study),
        "lead": _lead(found, placed) if len(found) > 1 else [],
        "answers": told(found, study.runs, table),
        "claims": _claims(found, study.runs, table),
        "comparisons": [compared(each) for each in found if each.margins],
        "incident": _incident(study),
        "notes": _notes(study, bool(paired)),
        "run": _run(study),
        "groups": groups(study, table),
        "places": placed,
        "reached": reached(study),
        "target_columns": [(define(cost), delta) for cost, delta in TOLD],
        "metrics": [m for m in metrics if m.name in MAIN_METRICS],
        "other_metrics": [m for m in metrics if m.name not in MAIN_METRICS],
        "costs": [*COSTS, MEMORY],
        "work": _work(study),
        "problems": study.problems.fillna({"message": ""}).to_dict("records"),
        "definitions": [*metrics, *paired, *COSTS, MEMORY],
        "settings": _pairs(study.section("settings")),
        "provenance": _pairs(study.section("provenance")),
        "origin": _origin(study),
        "entries": [
            ("Datasets", _datasets(study)),
            ("Methods", _methods(study)),
            ("Hyperparameters", [(name, text, "") for name, text in settings_used(study.info)]),
        ],
        "command": str(study.info.get("command") or ""),
        "files": _files(study.folder),
        "unfitted": UNFITTED,
        "missing": units.MISSING,
    }


def _claims(found: list[Comparison], runs: pd.DataFrame, table: pd.DataFrame) -> list[dict[str, Any]]:
    """What opens the page: of each comparison a title, its verdicts, what it comes to, and the sentence in full."""
    if not found:
        return [{"says": text} for text in told(found, runs, table)]
    return [
        {
            "title": f"{each.subject} against {each.other}",
            "verdicts": _verdicts(each),
            "says": matching(each, each.subject) if each.margins else sentence(each),
            "more": sentence(each) if each.margins else "",
        }
        for each in found
    ]


def _lead(found: list[Comparison], placed: list[dict[Hashable, Any]]) -> list[str]:
    """Many comparisons in a few sentences: how often each subject was better or worse, and who ranks where."""
    sentences = []
    for subject in dict.fromkeys(each.subject for each in found):
        told = Counter(verdict_of(margin) for each in found if each.subject == subject for margin in each.margins)
        total = told.total() - told[TOO_FEW]
        if total:
            counts = f"{told[BETTER]} of {total} comparisons, indistinguishable in {told[INDISTINGUISHABLE]}"
            sentences.append(f"{subject} is better in {counts}, worse in {told[WORSE]}.")
    if len(placed) > 1:
        ranks = units.listed([f"{row['method']} {units.number(row['rank'], 1)}" for row in placed])
        sentences.append(f"Mean ranks by test log-likelihood: {ranks}.")
    return sentences


def _verdicts(comparison: Comparison) -> list[tuple[str, str, int]]:
    """Each verdict, a sign for it, and on how many datasets it holds: the most frequent first, none at all last."""
    words = Counter(verdict_of(margin) for margin in comparison.margins)
    found = [(word, SIGNS[word], n) for word, n in words.most_common()]
    return sorted(found, key=lambda each: each[0] == TOO_FEW)


def _metrics(measurements: pd.DataFrame) -> list[Definition]:
    units = dict(zip(measurements["metric"], measurements.get("unit", measurements["metric"]), strict=True))
    return [define(name, str(units.get(name, ""))) for name in metric_names(measurements)]


def _work(study: Study) -> list[dict[str, Any]]:
    """Each fitted method with its share of FLOPs that is charged by formula, and its kinds of work with theirs."""
    shares = work_shares(study.work[study.work["method"].isin(fitted(study.methods))])
    return [
        {
            "method": method,
            "formula": units.percent(kinds.loc[kinds["by"] == "formula", "share"].sum()),
            "kinds": [
                (k["name"], units.percent(k["share"]), k["by"])
                for k in kinds[kinds["share"] >= LEAST_SHARE].to_dict("records")
            ],
        }
        for method, kinds in shares.groupby("method", sort=False)
    ]


def _incident(study: Study) -> str:
    """What did not finish, in a sentence; empty where all did."""
    if study.problems.empty:
        return ""
    counts = study.problems["status"].value_counts(sort=False)
    words = {"timeout": "timed out"}
    parts = [f"{n} {words.get(str(status), status)}" for status, n in counts.items()]
    return (
        f"{len(study.problems)} of {units.plural(len(study.runs), 'run')} did not finish: "
        f"{units.listed(parts)}. What is said of their methods there rests on the other seeds."
    )


def _run(study: Study) -> str:
    """The size of the study in a line."""
    settings = study.section("settings")
    counts = (
        (len(study.datasets), "dataset"),
        (len(study.methods), "method"),
        (study.runs["seed"].nunique(), "seed"),
    )
    parts = [units.plural(n, noun) for n, noun in counts]
    for key, text in (("size", "{} training points"), ("test_size", "{} test points"), ("noise", "noise {}")):
        if settings.get(key) is not None:
            parts.append(text.format(settings[key]))
    return " · ".join(parts)


def _notes(study: Study, paired: bool) -> list[str]:
    """What a reader must know before trusting a number."""
    notes = []
    if paired:
        notes.append(
            "Differences are in test log-likelihood on the same data, the median over seeds with a 95% bootstrap "
            "interval; better and worse are those whose interval excludes zero and whose signed-rank test, corrected "
            "for all comparisons made here, has p of at most 5%. "
            "The cost ratios are of whole fits, the median over datasets."
        )
    if study.runs.get("concurrent", pd.Series(dtype=bool)).fillna(False).astype(bool).any():
        notes.append("Runs ran side by side, so wall times are contended; CPU time and FLOPs are the fairer axes.")
    errors = _final_errors(study)
    if len(errors):
        middle, most = units.number(errors.median(), 4), units.number(errors.max(), 4)
        text = f"Standard error of a fitted method's final test log-likelihood: median {middle}, most {most} nats."
        notes.append(text)
    return [*notes, *_contained(study)]


def _contained(study: Study) -> list[str]:
    """What methods did beyond their own results, by method, as the messages of their finished runs tell."""
    done = study.runs[study.runs["status"] == "done"]
    texts = done["message"].fillna("").str.extract(f"({CONTAINED}.*)", expand=False)
    notes = (done["method"].astype(str) + ", " + texts).dropna().value_counts(sort=False)
    return [f"{note} ({units.plural(n, 'run')})." for note, n in zip(notes.index, notes.tolist(), strict=True)]


def _final_errors(study: Study) -> pd.Series:
    """The standard errors of test_ll at the last look at each finished run of a fitted method."""
    rows = finished(study.measurements, study.runs)
    rows = rows[(rows["metric"] == "test_ll") & rows["method"].isin(fitted(study.methods))]
    last = rows["checkpoint"] == rows.groupby(RUN)["checkpoint"].transform("max")
    return rows.loc[last].get("stderr", pd.Series(dtype=float)).dropna()


def _pairs(section: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), _plain(value)) for key, value in section.items()]


def _origin(study: Study) -> str:
    """The provenance as lines that can be copied, with the seeds that were run."""
    seeds = ", ".join(str(seed) for seed in sorted(study.runs["seed"].unique()))
    return "\n".join(f"{key}: {value}" for key, value in [*_pairs(study.section("provenance")), ("seeds", seeds)])


def _methods(study: Study) -> list[tuple[str, str, str]]:
    """Name, what it is, and its source."""
    about = study.section("methods").items()
    return [(name, str(each.get("summary") or ""), str(each.get("source") or "")) for name, each in about]


def _datasets(study: Study) -> list[tuple[str, str, str]]:
    """Name, what it is with its dimensions and noise, and its source."""
    texts = {"latent_dim": "latent dimension {}", "data_dim": "data dimension {}", "noise": "noise {}"}
    entries = []
    for name, each in study.section("datasets").items():
        facts = [text.format(_short(each[key])) for key, text in texts.items() if each.get(key) is not None]
        if each.get("expected_log_prob"):
            value, error = each["expected_log_prob"]
            facts.append(f"E log p = {units.number(value)} ± {units.number(error)} nats")
        parts = [each.get("summary"), ", ".join(facts)]
        entries.append((name, "; ".join(filter(None, parts)), str(each.get("source") or "")))
    return entries


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _files(folder: Path) -> list[tuple[str, str]]:
    known = {
        "measurements.parquet": "every look at every run, one metric a row",
        "diagnostics.parquet": "what tells whether the estimator of a metric worked: numerical errors, sample sizes",
        "work.parquet": "where the FLOPs went, by kind of work, counted or charged by formula",
        "runs.parquet": "one row per dataset, method and seed, with status and total cost",
        "posteriors.parquet": "how probable the code of each training datum is for four x: truth, floor, methods",
        "signals.parquet": "what the noiseless signal may have been for four held-out x: truth and methods",
        "densities.parquet": "true and learned log densities on a grid, for two-dimensional data",
        "study.json": "settings, provenance and the command",
        "study.toml": "what was asked for, to be run again with `python -m bench run`",
        "log.txt": "when each command began and ended, and what became of each run, in UTC",
        "figures/": "every figure as SVG",
        "report.md": "this report as Markdown",
        "report.html": "this report as one file",
    }
    written = ("figures/", "report.md", "report.html")
    return [(name, what) for name, what in known.items() if name in written or (folder / name).exists()]

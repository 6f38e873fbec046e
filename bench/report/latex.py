"""A study's tables for a paper: LaTeX with booktabs, a file for each question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jinja2
import pandas as pd

from bench.common import units
from bench.report.typeset import number, text
from bench.stats.bootstrap import LEAST_SEEDS
from bench.stats.comparisons import Comparison, Margin, comparisons
from bench.stats.cost_to_target import targets
from bench.stats.estimates import estimates
from bench.stats.paired import BETTER, INDISTINGUISHABLE, WORSE, corrected, interval, p_value, verdict
from bench.stats.summary import PAIR, final, fitted
from bench.store.schema import Definition, define
from bench.store.study_tables import Study, replace

COLUMNS = 4  # datasets side by side, as many as a page is wide
METRICS = ("test_ll", "oracle_gap")
STEMS = ("test-ll", "oracle-gap", "differences", "cost-to-target", "cost-to-match")
DELTA = 0.1  # nats from the truth, the target
_ARROWS = {BETTER: r"$\uparrow$", WORSE: r"$\downarrow$", INDISTINGUISHABLE: r"$\approx$"}
_INTERVALS = f"with its 95\\% bootstrap interval below it, where there are {LEAST_SEEDS} seeds or more"

Cell = tuple[str, str]
EMPTY: Cell = ("--", "")


@dataclass(frozen=True)
class Row:
    """A method's cells, each a value over a smaller one, in LaTeX."""

    name: str
    cells: list[Cell]

    @property
    def two(self) -> bool:
        """Whether anything stands below a value."""
        return any(below for _, below in self.cells)


@dataclass(frozen=True)
class Float:
    """A table as it floats on a page; all of it LaTeX."""

    caption: str
    label: str
    corner: str
    columns: list[str]
    rows: list[Row]


def write(study: Study) -> None:
    """Write tables/*.tex into a study's folder; a table that there is nothing for is removed."""
    folder = study.folder / "tables"
    folder.mkdir(exist_ok=True)
    found = tables(study)
    for stem in STEMS:
        path = folder / f"{stem}.tex"
        replace(path, found[stem].encode()) if stem in found else path.unlink(missing_ok=True)


def tables(study: Study) -> dict[str, str]:
    """LaTeX by file stem: final quality, method against method, and the cost to come near the truth or the other."""
    ends = final(study.measurements, study.runs)
    pairs = [each for each in comparisons(study.measurements, study.runs) if each.margins]
    found = {stem: _quality(study, ends, name) for stem, name in zip(STEMS, METRICS, strict=False) if name in ends}
    found["cost-to-target"] = _to_target(study)
    if pairs:
        found["differences"] = _against(study, pairs, "differences", _DIFFERENCE, _difference)
        found["cost-to-match"] = _against(study, pairs, "cost-to-match", _COST, _cost)
    return {stem: _render(study, floats) for stem, floats in found.items() if floats}


def _render(study: Study, floats: list[Float]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.report"),
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made = f"Made by mapa-bench from {text(study.name)}; needs booktabs."
    return environment.get_template("tables.tex.j2").render(floats=floats, made=made)


def _floats(
    caption: str, stem: str, corner: str, names: list[str], columns: list[str], cell: Callable[[str, str], Cell]
) -> list[Float]:
    """A matrix of cell(name, column) in floats of so many columns as fit; columns without any cell are left out."""
    filled = {column: [cell(name, column) for name in names] for column in columns}
    shown = [column for column in columns if any(each != EMPTY for each in filled[column])]
    width = -(-len(shown) // max(-(-len(shown) // COLUMNS), 1))  # as even as can be
    parts = [shown[i : i + width] for i in range(0, len(shown), max(width, 1))]
    return [
        Float(
            caption=caption + (f" Part {i} of {len(parts)}." if len(parts) > 1 else ""),
            label=f"tab:{stem}" + (f"-{i}" if len(parts) > 1 else ""),
            corner=corner,
            columns=[text(column) for column in part],
            rows=[Row(text(name), [filled[column][place] for column in part]) for place, name in enumerate(names)],
        )
        for i, part in enumerate(parts, 1)
    ]


def _conditions(study: Study, seeds: list[int]) -> str:
    """Under what conditions, as a caption says it."""
    settings, least, most = study.section("settings"), min(seeds), max(seeds)
    parts = [units.plural(most, "seed") if least == most else f"{least} to {most} seeds"]
    for key, told in (("size", "{} training points"), ("test_size", "{} test points"), ("noise", "noise {}")):
        if settings.get(key) is not None:
            parts.append(text(told.format(settings[key])))
    return ", ".join(parts) + "."


def _quality(study: Study, ends: pd.DataFrame, name: str) -> list[Float]:
    """Where each method ended, by one metric."""
    metric = define(name)
    values = {
        (str(dataset), str(method)): each.droplevel([0, 1])
        for (dataset, method), each in ends[name].groupby(PAIR, sort=False)
        if each.notna().any()
    }
    measured = estimates(study.measurements, study.runs, [name]).to_dict("records")
    known = {(row["dataset"], row["method"]): row for row in measured}
    marks = {pair: mark for dataset in study.datasets for pair, mark in _marks(values, dataset, metric).items()}

    def cell(method: str, dataset: str) -> Cell:
        pair = dataset, method
        return _value(known[pair], marks.get(pair, "")) if pair in values else EMPTY

    methods = [method for method in study.methods if any(pair[1] == method for pair in values)]
    seeds = [len(each) for each in values.values()]
    caption = (
        f"Final {metric.label} ({metric.unit}, {metric.better} is better): median over seeds, {_INTERVALS}. Bold: the "
        "best fitted method of a dataset; underlined: indistinguishable from it over shared seeds, by the interval of "
        "the paired difference or the signed-rank test at 5\\%, corrected for the number of methods. "
        f"{_conditions(study, seeds)}"
    )
    return _floats(caption, STEMS[METRICS.index(name)], "method", methods, study.datasets, cell)


def _marks(values: dict[tuple[str, str], pd.Series], dataset: str, metric: Definition) -> dict[tuple[str, str], str]:
    """Which fitted methods of a dataset are the best, 'bold', or not told apart from it over shared seeds, 'level'."""
    sign = -1 if metric.better == "lower" else 1
    names = fitted([method for each, method in values if each == dataset])
    ranked = {method: sign * values[dataset, method].median(skipna=False) for method in names}
    known = {method: value for method, value in ranked.items() if value == value}
    best = [method for method, value in known.items() if value == max(known.values())]
    apart = {
        method: (values[dataset, method] - values[dataset, best[0]]).dropna().to_list()
        for method in known
        if method not in best
    }
    p_values = corrected([p_value(each) for each in apart.values()])
    found = {(dataset, method): "bold" for method in best}
    for (method, differences), p in zip(apart.items(), p_values, strict=True):
        bounds = interval(differences)
        if bounds is not None and verdict(bounds, p) == INDISTINGUISHABLE:
            found[dataset, method] = "level"
    return found


def _value(estimate: dict[Any, Any], mark: str) -> Cell:
    """The median over seeds, and its interval."""
    middle = number(units.number(estimate["median"]), "mathbf" if mark == "bold" else "")
    below = _interval(units.number(estimate["median_low"]), units.number(estimate["median_high"]))
    return rf"\underline{{{middle}}}" if mark == "level" else middle, below


def _interval(low: str, high: str) -> str:
    return "" if units.MISSING in (low, high) else number(f"[{low}, {high}]")


def _to_target(study: Study) -> list[Float]:
    """The FLOPs to come within DELTA of the truth, methods by datasets."""
    table = targets(study.measurements, study.runs)
    chosen = table[(table["delta"] == DELTA) & (table["cost"] == "flops")].to_dict("records")
    known = {(row["method"], row["dataset"]): row for row in chosen}
    if not known:
        return []

    def cell(method: str, dataset: str) -> Cell:
        return _reached(known[method, dataset]) if (method, dataset) in known else EMPTY

    caption = (
        f"GFLOP until the oracle gap is first at most {DELTA:g} nats, and in how many seeds it gets there: the median, "
        f"seeds that do not being censored at their total ($\\infty$: half are not seen to get there), {_INTERVALS}. "
        f"{_conditions(study, [row['seeds'] for row in chosen])}"
    )
    methods = [method for method in study.methods if any(pair[0] == method for pair in known)]
    return _floats(caption, "cost-to-target", "method", methods, study.datasets, cell)


def _reached(row: dict[Any, Any]) -> Cell:
    middle, low, high = (_giga(row[name]) for name in ("median", "low", "high"))
    return f"{number(middle)} {{\\scriptsize {row['reached']}/{row['seeds']}}}", _interval(low, high)


def _giga(value: float) -> str:
    return units.MISSING if value != value else f"{value / 1e9:.3g}"


_DIFFERENCE = (
    "{subject} against others: the median over shared seeds of the paired difference in final test log-likelihood "
    f"(nats, {{subject}} less the other), {_INTERVALS}. Better ($\\uparrow$) and worse ($\\downarrow$): the interval "
    "excludes zero, and the signed-rank test rejects it at 5\\%, corrected for all comparisons; the others are "
    "indistinguishable ($\\approx$), and those without a mark have too few seeds. {conditions}"
)
_COST = (
    "What {subject} spends until it first reaches the final test log-likelihood of another method, in units of what "
    "that method spends until it does: FLOPs, and below them wall time and in how many of the shared seeds it does; "
    "the median over seeds, $\\infty$ where half of them or more never do. {conditions}"
)


def _against(
    study: Study, pairs: list[Comparison], stem: str, caption: str, cell: Callable[[Margin], Cell]
) -> list[Float]:
    """A matrix for each method that is compared with others: those by datasets."""
    floats = []
    for subject in dict.fromkeys(pair.subject for pair in pairs):
        margins = {(p.other, m.dataset): m for p in pairs if p.subject == subject for m in p.margins}
        told = caption.format(
            subject=text(subject), conditions=_conditions(study, [margin.seeds for margin in margins.values()])
        )
        others = list(dict.fromkeys(other for other, _ in margins))

        def found(other: str, dataset: str, margins: dict[tuple[str, str], Margin] = margins) -> Cell:
            return cell(margins[other, dataset]) if (other, dataset) in margins else EMPTY

        floats += _floats(told, f"{stem}-{_slug(subject)}", "against", others, study.datasets, found)
    return floats


def _slug(name: str) -> str:
    """A name as a label may hold it."""
    return "".join(mark if mark.isascii() and mark.isalnum() else "-" for mark in name)


def _difference(margin: Margin) -> Cell:
    value, _, bounds = units.apart(margin.nats, margin.interval).partition(" ")
    arrow = f" {_ARROWS[margin.verdict]}" if margin.interval else ""
    return number(value) + arrow, number(bounds)


def _cost(margin: Margin) -> Cell:
    match = margin.match
    below = f"{number(units.ratio(match.wall))}, {match.reached}/{match.seeds}"
    return number(units.ratio(match.flops)), below

"""A study's results as LaTeX tables with booktabs, one file per question.

The layout is a jinja template: pandas Styler has no cells of two lines and no line space between rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jinja2
import pandas as pd

from bench.common import units
from bench.report import study_notes
from bench.report.typeset import number, text
from bench.stats.bootstrap import LEAST_SEEDS
from bench.stats.comparisons import Comparison, Difference, comparisons
from bench.stats.cost_to_target import SOLVED, targets
from bench.stats.estimates import estimates
from bench.stats.matching import SLACK
from bench.stats.summary import best, final, learners
from bench.stats.verdicts import BETTER, EQUIVALENT, UNDECIDED, WORSE, decide
from bench.store.files import atomic_write
from bench.store.schema import PAIR, Definition, define
from bench.store.study_tables import Study

COLUMNS = 4  # the most datasets that fit side by side
METRICS = ("test_ll", "oracle_gap")
STEMS = ("test-ll", "oracle-gap", "differences", "cost-to-target", "cost-to-match")
_ARROWS = {BETTER: r"$\uparrow$", WORSE: r"$\downarrow$", EQUIVALENT: r"$\approx$", UNDECIDED: "?"}
_INTERVALS = f"with its 95\\% bootstrap interval below it if there are {LEAST_SEEDS} seeds or more"

Cell = tuple[str, str]
EMPTY: Cell = ("--", "")


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        name: The name of the row, in LaTeX.
        cells: Each a value and a smaller one below it, in LaTeX.
    """

    name: str
    cells: list[Cell]

    @property
    def two(self) -> bool:
        """Whether anything is below a value."""
        return any(below for _, below in self.cells)


@dataclass(frozen=True)
class Float:
    """A floating table, all in LaTeX.

    Args:
        caption: The caption.
        label: The label, for references.
        corner: The heading of the first column.
        columns: The headings of the other columns.
        rows: The rows.
    """

    caption: str
    label: str
    corner: str
    columns: list[str]
    rows: list[Row]


def write(study: Study) -> None:
    """Write tables/*.tex into a study's folder, and remove those that would be empty."""
    folder = study.folder / "tables"
    folder.mkdir(exist_ok=True)
    found = tables(study)
    for stem in STEMS:
        path = folder / f"{stem}.tex"
        atomic_write(path, found[stem]) if stem in found else path.unlink(missing_ok=True)


def tables(study: Study) -> dict[str, str]:
    """LaTeX by file stem: final quality, paired differences, and the costs to come near the truth and to match."""
    ends = final(study.measurements, study.runs)
    pairs = [
        each for each in comparisons(study.measurements, study.runs, study.baseline, study.margin) if each.differences
    ]
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
    """A matrix of cell(name, column), in as many floats as its columns need; empty columns are left out."""
    filled = {column: [cell(name, column) for name in names] for column in columns}
    shown = [column for column in columns if any(each != EMPTY for each in filled[column])]
    width = -(-len(shown) // max(-(-len(shown) // COLUMNS), 1))  # as even as possible
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
    """The number of seeds and the conditions of a study, for a caption, and which methods it did not run itself."""
    low, high = min(seeds), max(seeds)
    number_of_seeds = units.plural(high, "seed") if low == high else f"{low} to {high} seeds"
    borrowed = f" Borrowed from another study: {text(units.listed(list(study.borrowed)))}." if study.borrowed else ""
    return ", ".join([number_of_seeds, *map(text, study_notes.conditions(study))]) + "." + borrowed


def _quality(study: Study, ends: pd.DataFrame, name: str) -> list[Float]:
    """The final value of each method by one metric."""
    metric = define(name)
    values = {
        (str(dataset), str(method)): each.droplevel([0, 1])
        for (dataset, method), each in ends[name].groupby(PAIR, sort=False)
        if each.notna().any()
    }
    measured = estimates(study.measurements, study.runs, [name]).to_dict("records")
    known = {(row["dataset"], row["method"]): row for row in measured}
    marks = {
        pair: mark
        for dataset in study.datasets
        for pair, mark in _marks(values, dataset, metric, learners(study.runs)).items()
    }

    def cell(method: str, dataset: str) -> Cell:
        pair = dataset, method
        return _value(known[pair], marks.get(pair, "")) if pair in values else EMPTY

    methods = [method for method in study.methods if any(pair[1] == method for pair in values)]
    seeds = [len(each) for each in values.values()]
    caption = (
        f"Final {metric.label} ({metric.unit}, {metric.better} is better): median over seeds, {_INTERVALS}. Bold: the "
        "best fitted method of a dataset, by differences at the same seeds; underlined: not told apart from it, by "
        "sign flips at 5\\%, corrected for the number of methods. "
        f"{_conditions(study, seeds)}"
    )
    return _floats(caption, STEMS[METRICS.index(name)], "method", methods, study.datasets, cell)


def _marks(
    values: dict[tuple[str, str], pd.Series], dataset: str, metric: Definition, methods: list[str]
) -> dict[tuple[str, str], str]:
    """The marks of a dataset: 'bold' for the best fitted methods, 'level' for those not told apart from them."""
    sign = -1 if metric.better == "lower" else 1
    names = [method for method in methods if (dataset, method) in values]
    if not names:
        return {}
    first = best(pd.DataFrame({method: sign * values[dataset, method] for method in names}).T)
    apart: dict[str, dict[Any, float]] = {
        method: (values[dataset, method] - values[dataset, first[0]]).dropna().to_dict()
        for method in names
        if first and method not in first
    }
    known = {method: each for method, each in apart.items() if len(each)}
    decided = decide([(dataset, each) for each in known.values()])
    found = {(dataset, method): "bold" for method in first}
    for method, decision in zip(known, decided, strict=True):
        if decision.interval is not None and decision.verdict not in (BETTER, WORSE):
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
    """The FLOPs to come within SOLVED of the true model, methods by datasets."""
    table = targets(study.measurements, study.runs)
    chosen = table[(table["delta"] == SOLVED) & (table["cost"] == "flops")].to_dict("records")
    known = {(row["method"], row["dataset"]): row for row in chosen}
    if not known:
        return []

    def cell(method: str, dataset: str) -> Cell:
        return _reached(known[method, dataset]) if (method, dataset) in known else EMPTY

    caption = (
        f"GFLOP until the oracle gap is first at most {SOLVED:g} nats, and the number of seeds that reach it: the "
        f"median, {_INTERVALS}. Other seeds are censored at their total ($\\infty$: half or more do not reach it). "
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
    "{baseline} against others: the median over shared seeds of the paired difference in final test log-likelihood "
    f"(nats, {{baseline}} minus the other), {_INTERVALS}. Better ($\\uparrow$) and worse ($\\downarrow$): the interval "
    "excludes zero, and sign flips, corrected for all comparisons, reject at 5\\%. Equivalent ($\\approx$): the same "
    "for the hypothesis of a difference above {margin:g} nats. Others are undecided (?), or have too few seeds. "
    "{conditions}"
)
_COST = (
    f"The cost at which {{baseline}} first reaches the final test log-likelihood of another method less {SLACK:g} "
    "nats, divided by that method's cost to reach it: FLOPs, and below them wall time and the number of shared seeds "
    "that reach it; the median over seeds, $\\infty$ if half of them or more never reach it. {conditions}"
)


def _against(
    study: Study, pairs: list[Comparison], stem: str, caption: str, cell: Callable[[Difference], Cell]
) -> list[Float]:
    """A matrix per baseline: the other methods by datasets."""
    floats = []
    for baseline in dict.fromkeys(pair.baseline for pair in pairs):
        known = {(p.other, d.dataset): d for p in pairs if p.baseline == baseline for d in p.differences}
        full_caption = caption.format(
            baseline=text(baseline),
            margin=study.margin,
            conditions=_conditions(study, [each.seeds for each in known.values()]),
        )
        others = list(dict.fromkeys(other for other, _ in known))

        def found(other: str, dataset: str, known: dict[tuple[str, str], Difference] = known) -> Cell:
            return cell(known[other, dataset]) if (other, dataset) in known else EMPTY

        floats += _floats(full_caption, f"{stem}-{_slug(baseline)}", "against", others, study.datasets, found)
    return floats


def _slug(name: str) -> str:
    """A name without the characters that a label cannot have."""
    return "".join(mark if mark.isascii() and mark.isalnum() else "-" for mark in name)


def _difference(found: Difference) -> Cell:
    value, _, bounds = units.with_interval(found.nats, found.interval).partition(" ")
    arrow = f" {_ARROWS[found.verdict]}" if found.interval else ""
    return number(value) + arrow, number(bounds)


def _cost(found: Difference) -> Cell:
    match = found.match
    below = f"{number(units.ratio(match.wall))}, {match.reached}/{len(match.seeds)}"
    return number(units.ratio(match.flops)), below

"""Tables in the terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.common.units import plural, quantity
from bench.store import files, tables

if TYPE_CHECKING:
    from bench.registry.describe import Description
    from bench.registry.plugins import Entry
    from bench.registry.registry import Registry
    from bench.study.plan import Plan

SEEDS = (6, 8, 10, 15, 20, 40)
COSTS = ("wall_s", "flops", "decoder_passes")
WIDE = 140
PARAMETER = {
    "name": "name",
    "kind": "type",
    "default": "default",
    "searched": "tune tries",
    "ablated": "sweep tries",
    "meaning": "meaning",
}


def make_console() -> Console:
    """Standard output: as wide as the terminal, or 140 columns elsewhere."""
    return Console() if sys.stdout.isatty() else Console(width=WIDE)


def print_summary(folder: Path, metric: str) -> None:
    """Print the study's answers, and the median of a metric and of the costs per dataset and method."""
    from bench.config.schema import MARGIN
    from bench.report import sentences, study_notes
    from bench.stats.summary import summary
    from bench.store.study_tables import borrowed

    measurements, runs = tables.read_table(folder, "measurements"), tables.read_table(folder, "runs")
    rows = summary(measurements, runs)
    starred = metric == "test_ll"
    table = Table(
        title=f"{metric}: median over seeds{' (best in bold, *, by differences at the same seeds)' * starred}",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    gap = ["oracle gap"] if "oracle_gap_median" in rows else []
    for name in ("dataset", "method", metric, *gap, "seconds", "FLOPs", "decoder passes", "seeds"):
        table.add_column(name, justify="left" if name in ("dataset", "method") else "right")
    sources = borrowed(runs)
    previous = None
    for row in rows.to_dict("records"):
        if previous not in (None, row["dataset"]):
            table.add_section()
        best = starred and row["best"]
        table.add_row(
            "" if row["dataset"] == previous else escape(str(row["dataset"])),
            escape(study_notes.marked(str(row["method"]), sources)),
            f"{row.get(f'{metric}_median', float('nan')):.3f}{' *' if best else '  '}",
            *(f"{row['oracle_gap_median']:.3f}" for _ in gap),
            *(quantity(cost, row[cost]) for cost in COSTS),
            f"{row['seeds_done']}/{row['seeds_total']}",
            style="bold" if best else "",
        )
        previous = row["dataset"]
    console = make_console()
    console.print()
    console.print(table)
    stated = files.read_json(folder / "study.json")["settings"]
    for answer in sentences.answers(measurements, runs, rows, stated.get("baseline", ()), stated.get("margin", MARGIN)):
        console.print(f"\n{answer}", markup=False, highlight=False)
    for text in study_notes.borrowed(sources):
        console.print(f"\n{text}", markup=False, highlight=False)


def print_plan(plan: Plan, borrowed: int = 0, source: str = "") -> None:
    """Print what a plan runs, and what the verdicts on its results could find.

    Args:
        plan: The plan.
        borrowed: How many of its runs are not made, but taken from a stored study.
        source: That study.
    """
    import pandas as pd

    from bench.report.sentences import reach
    from bench.stats.comparisons import pairs
    from bench.stats.power import least_effect, least_margin

    settings, console = plan.settings, make_console()
    roles = [{"method": label, "role": plan.registry.make_method(label).role} for label in plan.methods]
    compared = pairs(pd.DataFrame(roles), settings.baseline)
    count = len(compared) * len(plan.datasets)
    sizes = ((len(plan.methods), "method"), (len(plan.datasets), "dataset"), (settings.seeds, "seed"))
    lines = [f"{plan.size} runs: {', '.join(plural(n, noun) for n, noun in sizes)}."]
    if borrowed:
        lines += [f"{plan.size - borrowed} would be made here; {borrowed} are borrowed from {source}."]
    lines += [f"{', '.join(plan.methods)} on {', '.join(plan.datasets)}."]
    lines += reach(settings.seeds, count, settings.margin)
    for line in lines:
        console.print(line, markup=False, highlight=False)
    if not count:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("seeds", "difference that is found", "spread at which equals are found equivalent"):
        table.add_column(name, justify="right")
    for seeds in sorted({*SEEDS, settings.seeds}):
        effect = least_effect(seeds, count)
        spread = f"{settings.margin / least_margin(seeds, count):.2g} nats" if settings.margin else "-"
        known = (f"{effect:.2g} sd", spread) if math.isfinite(effect) else ("none", "none")
        table.add_row(str(seeds), *known, style="bold" if seeds == settings.seeds else "")
    console.print()
    console.print(table)


def print_tuned(folder: Path) -> None:
    """Print the tuned hyperparameters of a study, one line for each method."""
    from bench.report.hyperparameters import settings_used

    info = files.read_json(folder / "study.json")
    console = make_console()
    for name, text in settings_used(info):
        console.print(f"{name}: {text}", markup=False, highlight=False, soft_wrap=True)


def print_list(known: Registry, kinds: Iterable[str]) -> None:
    """Print methods, datasets, metrics or costs."""
    console = make_console()
    for kind in kinds:
        title = "costs, in FLOPs" if kind == "costs" else kind
        table = Table(
            title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False
        )
        for row in _rows(known, kind):
            table.add_row(*map(escape, row))
        console.print(table)
        console.print()


def print_details(about: Description) -> None:
    """Print one method or dataset, with its parameters."""
    console = make_console()
    console.print(f"[bold]{escape(about.name)}[/bold]  {escape(about.summary)}", highlight=False)
    origin = "" if about.origin == about.source else f" ({about.origin})"
    console.print(f"source: {about.source}{origin}\n\n{about.about}\n", markup=False, highlight=False)
    if not about.parameters:
        console.print("It takes no parameters.")
        return
    columns = {
        field: title for field, title in PARAMETER.items() if any(getattr(each, field) for each in about.parameters)
    }
    table = Table(
        title=escape(f"parameters, as in {about.example}"),
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    for title in columns.values():
        table.add_column(title)
    for each in about.parameters:
        table.add_row(*(escape(getattr(each, field)) for field in columns))
    console.print(table)


def _rows(known: Registry, kind: str) -> Iterable[tuple[str, str, str]]:
    if kind == "metrics":
        from bench.store.schema import METRICS

        return [(metric.name, f"{metric.meaning} ({metric.unit})", metric.source) for metric in METRICS]
    if kind == "costs":
        from bench.fit.cost_model import cost_table

        return [(f"{cost.flops} per {cost.per}", cost.operators, "") for cost in cost_table()]
    items = known.methods if kind == "methods" else known.datasets
    return [(item.name, _described(item), item.source) for item in items.values()]


def _described(item: Entry) -> str:
    if not item.latent_dim:
        return item.summary
    size = f" (L = {item.latent_dim}, D = {item.data_dim}"
    if item.expected_log_prob:
        size += f"; E log p = {item.expected_log_prob[0]:.3f}"
    return f"{item.summary}{size})"

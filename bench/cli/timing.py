"""Shows timings while they run and afterwards."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click
import numpy as np

from bench.common.units import plural, quantity
from bench.timing.ratios import Comparison, Ratio, comparisons, self_ratios
from bench.timing.run import ARMS

if TYPE_CHECKING:
    from bench.config.schema import TimingSettings
    from bench.timing.run import Result, Timing


def silent(timings: Iterator[Timing], _: TimingSettings) -> Iterator[Timing]:
    """Show nothing."""
    return timings


def lines(timings: Iterator[Timing], settings: TimingSettings) -> Iterator[Timing]:
    """Print a line for each round on standard error."""
    began, rounds = time.perf_counter(), settings.rounds
    while done := list(itertools.islice(timings, len(ARMS) * len(settings.methods))):
        number = done[0].round
        left = (time.perf_counter() - began) / (number + 1) * (rounds - number)
        about = f"  about {quantity('wall_s', left)} left" if left else ""
        click.echo(f"[{f'{number}/{rounds}' if number else 'warm-up'}] {_seconds(done)}{about}", err=True)
        yield from done


def bar(timings: Iterator[Timing], settings: TimingSettings) -> Iterator[Timing]:
    """Show a live bar that moves between fits only: a thread that moves it would be timed."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    total = (settings.rounds + 1) * len(ARMS) * len(settings.methods)
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as live:
        task = live.add_task("warm-up round", total=total)
        live.refresh()
        for timing in timings:
            where = f"round {timing.round} of {settings.rounds}" if timing.round else "warm-up round"
            live.update(task, advance=1, description=where, refresh=True)
            yield timing


def _seconds(timings: Iterable[Timing]) -> str:
    """'mapa 0.2 s (46 steps), vae 2.9 s (300 steps)': medians by method."""
    by_method: dict[str, list[Timing]] = {}
    for timing in timings:
        by_method.setdefault(timing.method, []).append(timing)
    return ", ".join(
        f"{name} {quantity('wall_s', float(np.median([t.wall_s for t in fits])))} ({plural(fits[0].steps, 'step')})"
        for name, fits in sorted(by_method.items())
    )


def show(result: Result) -> None:
    """Print the ratios, the ratios of methods to themselves, and a sentence for each pair."""
    from rich.console import Console
    from rich.table import Table

    from bench.cli.tables import WIDE

    times, seed = result.times, result.settings.seed
    pairs = comparisons(times, seed)
    table = Table(title=_title(result), title_justify="left", box=None, pad_edge=False)
    for name in ("time of / time of", "ratio", "95% interval", "noise floor", "verdict"):
        table.add_column(name, justify="right" if name in ("ratio", "95% interval", "noise floor") else "left")
    for c in pairs:
        table.add_row(f"{c.first} / {c.second}", *_written(c.ratio), _percent(c.noise_floor), c.verdict)
    table.add_section()
    for name, ratio in self_ratios(times, seed).items():
        table.add_row(f"{name} A / A'", *_written(ratio), _percent(ratio.reach), "1 in truth")
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    console.print(table)
    for c in pairs:
        console.print(f"\n{sentence(c)}", markup=False, highlight=False)


def sentence(c: Comparison) -> str:
    """A comparison in a sentence."""
    value, interval = _written(c.ratio)
    floor = _percent(c.noise_floor)
    return f"{c.first} takes {value} {interval} of {c.second}'s time: {c.verdict} (noise floor {floor})."


def _title(result: Result) -> str:
    settings, load = result.settings, result.provenance["load_average_before"]
    busy = f"; load average {load[0]:.1f} before" if load else ""
    return (
        f"{settings.dataset}, {settings.n_train} training points, seed {settings.seed}, "
        f"{settings.rounds} rounds{busy}\n"
        f"{_seconds(result.timings)}"
    )


def _written(ratio: Ratio) -> tuple[str, str]:
    """'0.0412×' and '[0.0351, 0.0450]'."""
    return f"{_digits(ratio.value)}×", f"[{_digits(ratio.low)}, {_digits(ratio.high)}]"


def _digits(value: float) -> str:
    """Three decimals near 1, where they matter, and three significant digits elsewhere."""
    return f"{value:.3f}" if 0.1 <= value < 10 else f"{float(f'{value:.3g}'):g}"


def _percent(fraction: float) -> str:
    return f"{float(f'{100 * fraction:.2g}'):g}%"

"""Tuning in rounds: the defaults of every method first, then more trials for as long as the budget has room."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count, product
from typing import TYPE_CHECKING

from bench.registry.labels import name_of
from bench.tuning.budget import affordable
from bench.tuning.design import Pair, trials, with_trials
from bench.tuning.selection import table

if TYPE_CHECKING:
    import pandas as pd

    from bench.registry.registry import Registry
    from bench.store.records import RunResult
    from bench.study.execute import Settings

RunRound = Callable[[str, "Settings"], "list[RunResult]"]


def run(settings: Settings, known: Registry, run_round: RunRound) -> tuple[list[RunResult], pd.DataFrame]:
    """Run trials until no method can afford another on any dataset; all results, and the table of trials.

    settings: as `planned` gives them. run_round: given what is told of a round and its study, runs what is missing of
    it and returns all results that the folder holds, which may be of other datasets and methods, too. In the table,
    `counted` says which trials the budget allows.
    """
    budget = settings.budget or math.inf
    wanted = dict.fromkeys(product(settings.datasets, settings.methods), 1)
    told = "the defaults"
    for number in count(1):
        results = run_round(f"round {number}: {told}", with_trials(settings, wanted, known))
        names = dict.fromkeys(name_of(result.spec.method) for result in results)
        tried = {name: trials(name, settings.trials or 1, known) for name in names}
        rows = table(results, tried)
        costs = _costs(rows)
        allowed = {pair: affordable(each, budget, len(tried[pair[1]])) for pair, each in costs.items()}
        wanted = {pair: most for pair, most in allowed.items() if most > len(costs[pair])}
        if not wanted:
            break
        told = f"{sum(most - len(costs[pair]) for pair, most in wanted.items())} more trials within the budget"
    pairs = zip(rows["dataset"], rows["method"], strict=True)
    return results, rows.assign(counted=rows["trial"] < [allowed[pair] for pair in pairs])


def _costs(rows: pd.DataFrame) -> dict[Pair, list[float]]:
    """The FLOPs of each trial over its seeds, by dataset and method."""
    groups = rows.groupby(["dataset", "method"], sort=False)
    return {(str(d), str(m)): each.groupby("trial")["flops"].sum().tolist() for (d, m), each in groups}

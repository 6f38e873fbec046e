"""Tuning in rounds: the defaults of every method first, then more trials for as long as the budget has room."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, product
from typing import TYPE_CHECKING

from bench.config.labels import name_of
from bench.study.plan import Pair, Plan
from bench.tuning.budget import affordable
from bench.tuning.design import settings_of, trials, with_trials
from bench.tuning.selection import table

if TYPE_CHECKING:
    import pandas as pd

    from bench.store.records import RunResult

RunRound = Callable[[str, Plan], "list[RunResult]"]


def run(plan: Plan, run_round: RunRound) -> tuple[list[RunResult], pd.DataFrame]:
    """Run trials until no method can afford another on any dataset.

    Args:
        plan: As `planned` gives it.
        run_round: Given a title and a plan, it runs what is missing and returns all results that the folder holds,
            those of other datasets and methods included.

    Returns:
        All results, and the table of trials, whose column `counted` says which trials the budget allows.
    """
    settings = settings_of(plan)
    wanted = dict.fromkeys(product(plan.datasets, plan.methods), 1)
    title = "the defaults"
    for number in count(1):
        results = run_round(f"round {number}: {title}", with_trials(plan, wanted))
        names = dict.fromkeys(name_of(result.spec.method) for result in results)
        tried = {name: trials(name, settings.trials, plan.registry) for name in names}
        rows = table(results, tried)
        costs = _costs(rows)
        allowed = {pair: affordable(each, settings.budget, len(tried[pair[1]])) for pair, each in costs.items()}
        wanted = {pair: most for pair, most in allowed.items() if most > len(costs[pair])}
        if not wanted:
            break
        title = f"{sum(most - len(costs[pair]) for pair, most in wanted.items())} more trials within the budget"
    pairs = zip(rows["dataset"], rows["method"], strict=True)
    return results, rows.assign(counted=rows["trial"] < [allowed[pair] for pair in pairs])


def _costs(rows: pd.DataFrame) -> dict[Pair, list[float]]:
    """The FLOPs of each trial over its seeds, by dataset and method."""
    groups = rows.groupby(["dataset", "method"], sort=False)
    return {(str(d), str(m)): each.groupby("trial")["flops"].sum().tolist() for (d, m), each in groups}

"""Tuning in rounds: the defaults, more trials for as long as the budget has room, and the best one on fresh seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import count, product
from typing import TYPE_CHECKING

from bench.config.labels import name_of
from bench.study.plan import Pair, Plan
from bench.tuning.budget import affordable
from bench.tuning.design import CONFIRMATION, FRESH_SEEDS, SEARCH, Stage, Trial, settings_of, trials, with_given
from bench.tuning.selection import best_trials, chosen_for, table

if TYPE_CHECKING:
    import pandas as pd

    from bench.config.schema import TuneSettings
    from bench.store.records import RunResult

RunRound = Callable[[str, Plan, Stage], "list[RunResult]"]


def run(plan: Plan, run_round: RunRound) -> tuple[list[RunResult], pd.DataFrame]:
    """Tune each method on each dataset, as often as is asked for.

    Args:
        plan: As `planned` gives it.
        run_round: Given a title, a plan and its stage, it runs what is missing and returns all results that the folder
            of the stage holds, those of other datasets and methods included.

    Returns:
        All results, and the table of trials, whose column `counted` says by which rows the choice is made.
    """
    import pandas as pd

    results: list[RunResult] = []
    tables: list[pd.DataFrame] = []
    pairs = list(product(plan.datasets, plan.methods))
    for tuning in range(1, settings_of(plan).repeats + 1):
        found, rows = _search(plan, pairs, tuning, run_round)
        plan, pairs = with_given(plan, found), list(_costs(rows))  # those of earlier commands too
        again, fresh = _confirm(plan, rows, tuning, run_round)
        results += [*found, *again]
        tables += [rows, *fresh]
    return results, pd.concat(tables, ignore_index=True)


def _search(
    plan: Plan, pairs: Iterable[Pair], tuning: int, run_round: RunRound
) -> tuple[list[RunResult], pd.DataFrame]:
    """Run trials until no method can afford another on any dataset; all results, and their table."""
    settings, stage = settings_of(plan), Stage(tuning, SEARCH)
    wanted = dict.fromkeys(pairs, 1)
    title = "the defaults"
    for number in count(1):
        tried = _tried(plan, tuning, (method for _, method in wanted))
        asked = [(d, trial.label) for (d, m), most in wanted.items() for trial in tried[m][:most]]
        results = run_round(_titled(plan, tuning, f"round {number}: {title}"), stage.of(plan, asked), stage)
        plan = with_given(plan, results)
        tried = _tried(plan, tuning, (name_of(result.spec.method) for result in results))
        rows = table(results, tried, stage)
        costs = _costs(rows)
        allowed = _allowed(costs, tried, settings)
        wanted = {pair: most for pair, most in allowed.items() if most > len(costs[pair])}
        if not wanted:
            break
        title = f"{sum(most - len(costs[pair]) for pair, most in wanted.items())} more trials within the budget"
    of_rows = zip(rows["dataset"], rows["method"], strict=True)
    return results, rows.assign(counted=rows["trial"] < [allowed[pair] for pair in of_rows])


def _confirm(
    plan: Plan, rows: pd.DataFrame, tuning: int, run_round: RunRound
) -> tuple[list[RunResult], list[pd.DataFrame]]:
    """Run the best trial and the defaults on fresh seeds where these are not the same; all results, and their table."""
    settings = settings_of(plan)
    best_of = best_trials(rows, settings)
    best = {(d, m): trial for d, m in _costs(rows) if (trial := best_of[chosen_for(d, settings), m])}
    if not best:
        return [], []
    stage = Stage(tuning, CONFIRMATION)
    tried = _tried(plan, tuning, rows["method"])
    asked = [(d, tried[m][i].label) for (d, m), trial in best.items() for i in (0, trial)]
    title = f"confirmation: the best trial and the defaults on {FRESH_SEEDS} fresh seeds"
    results = run_round(_titled(plan, tuning, title), stage.of(plan, asked), stage)
    found = table(results, tried, stage)
    each = zip(found["dataset"], found["method"], found["trial"], strict=True)
    return results, [found.assign(counted=[trial in (0, best.get((d, m))) for d, m, trial in each])]


def _allowed(
    costs: Mapping[Pair, list[float]], tried: Mapping[str, list[Trial]], settings: TuneSettings
) -> dict[Pair, int]:
    """How many trials the budget allows for each dataset and method: equally many wherever one choice is made."""
    least: dict[Pair, int] = {}
    for (dataset, method), each in costs.items():
        of = chosen_for(dataset, settings), method
        count = affordable(each, settings.budget, len(tried[method]))
        least[of] = min(least.get(of, count), count)
    return {(dataset, method): least[chosen_for(dataset, settings), method] for dataset, method in costs}


def _tried(plan: Plan, tuning: int, methods: Iterable[str]) -> dict[str, list[Trial]]:
    """The trials of some methods."""
    most = settings_of(plan).trials
    return {name: trials(name, most, plan, tuning) for name in dict.fromkeys(methods)}


def _titled(plan: Plan, tuning: int, title: str) -> str:
    repeats = settings_of(plan).repeats
    return title if repeats == 1 else f"tuning {tuning} of {repeats}, {title}"


def _costs(rows: pd.DataFrame) -> Mapping[Pair, list[float]]:
    """The FLOPs of each trial over its seeds, by dataset and method."""
    groups = rows.groupby(["dataset", "method"], sort=False)
    return {(str(d), str(m)): each.groupby("trial")["flops"].sum().tolist() for (d, m), each in groups}

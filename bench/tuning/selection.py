"""The score of each trial, and the choice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.config.labels import name_of

if TYPE_CHECKING:
    import pandas as pd

    from bench.registry.registry import Registry
    from bench.store.records import RunResult
    from bench.tuning.design import Trial

SCORE = "validation_ll"


@dataclass(frozen=True)
class Chosen:
    """The choice for a method on a dataset.

    Args:
        dataset: The dataset.
        method: The method.
        trial: The number of the chosen trial.
        parameters: The values of all hyperparameters that were searched.
        default: The score of the defaults, in nats; -inf if a fit failed or was skipped.
        best: The score of the chosen trial, in nats.
        trials: How many trials the budget allowed.
        unscored: How many of them have the score -inf.
        flops: What all of them cost.
        wall_s: What all of them took, in seconds.
    """

    dataset: str
    method: str
    trial: int
    parameters: dict[str, Any]
    default: float
    best: float
    trials: int
    unscored: int
    flops: float
    wall_s: float


def table(results: Iterable[RunResult], tried: Mapping[str, Sequence[Trial]]) -> pd.DataFrame:
    """One row per dataset, method, trial and seed: score with standard error, status, cost, hyperparameters (p_*).

    Args:
        results: The results of all runs.
        tried: The trials of each method.
    """
    import pandas as pd

    by_label = {trial.label: trial for each in tried.values() for trial in each}
    rows = [_row(result, by_label[result.spec.method]) for result in results]
    return pd.DataFrame(rows).sort_values(["dataset", "method", "trial", "seed"], ignore_index=True)


def _row(result: RunResult, trial: Trial) -> dict[str, Any]:
    score = next(((row.value, row.stderr) for row in result.rows if row.metric == SCORE), (math.nan, math.nan))
    return {
        "dataset": result.spec.dataset,
        "method": trial.method,
        "trial": trial.number,
        "seed": result.spec.seed,
        "score": score[0] if result.status == "done" else math.nan,
        "stderr": score[1],
        "status": result.status,
        "message": result.message,
        **asdict(result.cost),
        "concurrent": result.concurrent,
        **{f"p_{name}": value for name, value in result.parameters.items()},
    }


def choose(rows: pd.DataFrame, known: Registry) -> list[Chosen]:
    """For each dataset and method, the trial with the highest median score over seeds; the first among equals.

    Only trials within the budget count. A seed on which a fit failed or was skipped has the score minus infinity.

    Args:
        rows: The table of trials, with the column `counted`.
        known: What can be compared.
    """
    groups = rows[rows["counted"]].groupby(["dataset", "method"], sort=False)
    return [_chosen(str(d), str(m), each, known) for (d, m), each in groups]


def _chosen(dataset: str, method: str, rows: pd.DataFrame, known: Registry) -> Chosen:
    scores = rows["score"].fillna(-math.inf).groupby(rows["trial"]).median()
    best = int(scores.sort_values(ascending=False, kind="stable").index[0])
    values = rows[rows["trial"] == best].iloc[0]
    declared = known.parameters(name_of(method), {name: values[f"p_{name}"] for name in known.search(method)})
    costs = rows[["flops", "wall_s"]].sum()
    unscored = int((scores == -math.inf).sum())
    return Chosen(
        dataset,
        method,
        best,
        declared,
        float(scores[0]),
        float(scores[best]),
        len(scores),
        unscored,
        *map(float, costs),
    )


def by_dataset(choices: Iterable[Chosen]) -> dict[str, dict[str, dict[str, Any]]]:
    """The choices as {dataset: {method: {hyperparameter: value}}}."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for each in choices:
        found.setdefault(each.dataset, {})[each.method] = each.parameters
    return found


def changes(choice: Chosen, known: Registry) -> Iterator[str]:
    """Each chosen value that differs from the default, as 'learning_rate=0.003'."""
    from bench.config.labels import spell_value

    defaults = known.make_method(choice.method)
    for name, value in choice.parameters.items():
        if value != getattr(defaults, name):
            yield f"{name}={spell_value(value)}"

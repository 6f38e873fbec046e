"""The score of each trial, and the choice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.registry.declared import search
from bench.study.hyperparameters import EVERY
from bench.tuning.design import CONFIRMATION, SEARCH, settings_of

if TYPE_CHECKING:
    import pandas as pd
    from pandas.api.typing import DataFrameGroupBy

    from bench.config.schema import TuneSettings
    from bench.registry.registry import Registry
    from bench.store.records import RunResult
    from bench.study.plan import Pair, Plan
    from bench.tuning.design import Stage, Trial

SCORE = "validation_ll"
AHEAD = 8


@dataclass(frozen=True)
class Confirmation:
    """The best trial against the defaults on fresh seeds. At each seed both are fitted and scored on the same data.

    Args:
        seeds: The number of fresh seeds.
        ahead: On how many of them the trial scored higher. A fit that failed or was skipped scores below all others.
        gain: The mean difference of the trial from the defaults, in nats; infinite where a fit of one of them failed,
            NaN where fits of both did.
        stderr: The standard error of this mean paired difference, in nats; NaN where a fit failed.
        flops: What these fits cost.
    """

    seeds: int
    ahead: int
    gain: float
    stderr: float
    flops: float

    @property
    def holds(self) -> bool:
        """Whether the trial is ahead on enough seeds, and in the mean by more than the standard error."""
        return self.ahead >= AHEAD and self.gain > 0 and not self.gain <= self.stderr  # which may be NaN

    def __str__(self) -> str:
        finite = math.isfinite(self.gain)
        by = f"mean difference {self.gain:+.2g} ± {self.stderr:.2g} nats" if finite else "a fit failed"
        return f"ahead of the defaults on {self.ahead} of {self.seeds} fresh seeds ({by})"


@dataclass(frozen=True)
class Chosen:
    """The choice of one tuning for a method on a dataset, or on all.

    Args:
        dataset: The dataset that the choice is for; EVERY for one choice on all.
        method: The method.
        tuning: The number of the tuning.
        trial: The number of the chosen trial; 0 is the defaults.
        parameters: The values of all hyperparameters that are searched or that --set gives.
        best: The number of the trial with the best score.
        default_score: The score of the defaults, in nats; -inf if a fit failed or was skipped.
        best_score: The score of the best trial, in nats.
        confirmation: How the best trial did on fresh seeds; None if it is the defaults.
        trials: How many trials the budget allowed.
        unscored: How many of them have the score -inf.
        flops: What all of them cost.
        wall_s: What all of them took, in seconds.
        reason: Why the trial is chosen or the defaults are kept, in words.
    """

    dataset: str
    method: str
    tuning: int
    trial: int
    parameters: dict[str, Any]
    best: int
    default_score: float
    best_score: float
    confirmation: Confirmation | None
    trials: int
    unscored: int
    flops: float
    wall_s: float
    reason: str


def table(results: Iterable[RunResult], tried: Mapping[str, Sequence[Trial]], stage: Stage) -> pd.DataFrame:
    """One row per dataset, method, trial and seed: score with standard error, status, cost, hyperparameters (p_*).

    Args:
        results: The results of all runs of a stage.
        tried: The trials of each method.
        stage: The stage.
    """
    import pandas as pd

    by_label = {trial.label: trial for each in tried.values() for trial in each}
    shared = {"tuning": stage.tuning, "stage": stage.name}
    rows = [shared | _row(result, by_label[result.spec.method]) for result in results]
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


def chosen_for(dataset: str, settings: TuneSettings) -> str:
    """What a choice on a dataset is for: the dataset itself, or EVERY where one choice is made for all."""
    return EVERY if settings.jointly else dataset


def best_trials(rows: pd.DataFrame, settings: TuneSettings) -> dict[Pair, int]:
    """For each choice and method, the trial with the highest score; the first among equals.

    Args:
        rows: The rows of a search. Only those that count matter.
        settings: The settings of the tuning.
    """
    groups = _by_choice(rows[rows["counted"]], settings)
    return {(str(d), str(m)): _best(_scores(each)) for (d, m, _), each in groups}


def _by_choice(rows: pd.DataFrame, settings: TuneSettings) -> DataFrameGroupBy[Any, Any]:
    """The rows by what a choice is for, method and tuning."""
    return rows.groupby([rows["dataset"].map(lambda each: chosen_for(each, settings)), "method", "tuning"])


def _scores(rows: pd.DataFrame) -> pd.Series[float]:
    """The score of each trial: the median over seeds, its mean over datasets.

    A fit that failed or was skipped has the score minus infinity on its seed.
    """
    medians = rows["score"].fillna(-math.inf).groupby([rows["trial"], rows["dataset"]]).median()
    return medians.groupby("trial").mean()


def _best(scores: pd.Series[float]) -> int:
    """The number of the trial with the highest score, the first among equals."""
    return int(scores.to_numpy().argmax())


def choose(rows: pd.DataFrame, plan: Plan) -> list[Chosen]:
    """The choice of each tuning for each dataset and method: the best trial if it is confirmed, else the defaults.

    Fresh seeds confirm it if it is ahead of the defaults on at least 8 of 10, and if the mean paired difference exceeds
    its standard error. A trial that is ahead on a seed with a probability of at most one half meets the first
    condition with a probability of at most 56 / 1024 = 0.055 (the sign test), however many trials were compared, since
    they were compared on other seeds. The second condition holds wherever the trial is ahead on all seeds; it fails
    where the trial is far behind on a few.

    Where one choice is made for all datasets, the difference on a seed is its mean over datasets.

    Args:
        rows: The table of trials, with the column `counted`.
        plan: The plan of the tuning.
    """
    groups = _by_choice(rows[rows["counted"]], settings_of(plan))
    return [_chosen(str(d), str(m), each, plan) for (d, m, _), each in groups]


def _chosen(dataset: str, method: str, rows: pd.DataFrame, plan: Plan) -> Chosen:
    searched = rows[rows["stage"] == SEARCH]
    scores = _scores(searched)
    best = _best(scores)
    confirmation = _confirmation(rows[rows["stage"] == CONFIRMATION], best) if best else None
    trial = best if confirmation and confirmation.holds else 0
    taken = searched[searched["trial"] == trial]
    names = {**search(plan.registry, method), **plan.settings.set.get(method, {})}
    values = {name: value for name in names for value in taken[f"p_{name}"].dropna().head(1)}
    said = f"trial {best} wins" if trial else "the defaults are kept"
    why = f"trial {best} is {confirmation}" if confirmation else "no trial scored higher"
    return Chosen(
        dataset,
        method,
        int(rows["tuning"].iloc[0]),
        trial,
        plan.registry.parameters(method, values),
        best,
        float(scores[0]),
        float(scores[best]),
        confirmation,
        len(scores),
        int((scores == -math.inf).sum()),
        float(searched["flops"].sum()),
        float(searched["wall_s"].sum()),
        f"{said}: {why}",
    )


def _confirmation(fresh: pd.DataFrame, best: int) -> Confirmation:
    import numpy as np

    scores = fresh["score"].fillna(-math.inf).groupby([fresh["seed"], fresh["trial"]]).mean().unstack()
    differences = (scores[best] - scores[0]).to_numpy(dtype=float)
    ahead, seeds = int((differences > 0).sum()), len(differences)
    with np.errstate(invalid="ignore"):
        gain, stderr = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(seeds)
    return Confirmation(seeds, ahead, gain, stderr, float(fresh["flops"].sum()))


def by_dataset(choices: Iterable[Chosen]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The choices as {dataset: {method: [{hyperparameter: value}]}}, one of each tuning."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for each in choices:
        found.setdefault(each.dataset, {}).setdefault(each.method, []).append(each.parameters)
    return found


def changes(choice: Chosen, known: Registry) -> Iterator[str]:
    """Each chosen value that differs from the default, as 'learning_rate=0.003'."""
    from bench.config.labels import spell_value

    defaults = known.make_method(choice.method)
    for name, value in choice.parameters.items():
        if value != getattr(defaults, name):
            yield f"{name}={spell_value(value)}"

"""Compares the curve of one anytime run with whole runs whose learning rate falls along a cosine, cost by cost.

python -m tools.anytime [METHOD ...] [--datasets NAME,...] [--seeds FIRST:END]

For each method (default: vae) and each of nine problems: the median oracle gap over seeds at six costs from 2 to 34
GFLOP, of one anytime run, and of a cosine run of exactly that length each. By default, seeds are 100 to 105, which no
study uses. Writes results/reference/anytime/METHOD.csv, where rows of other problems and seeds stay, and prints where
the anytime run is behind, and by how much at the end at the same seeds: the median difference with its 95 % interval.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch

import datasets
from bench.common.errors import UsageError
from bench.fit.flop_counter import CountingLedger
from bench.fit.task import make_task
from bench.metrics.likelihood import learned_likelihood, true_likelihood
from bench.registry.registry import registry
from bench.stats.bootstrap import bounds
from bench.store.records import RunSpec
from datasets.base import Problem, Split, draw
from methods.contract.method import Fitted, Ledger, Method, NullLedger, Task

OUT = Path(__file__).parents[1] / "results" / "reference" / "anytime"
COSTS = np.geomspace(2e9, 34e9, 6)
SEEDS = range(100, 106)
N, N_TEST = 500, 500
SLACK, FACTOR = 0.01, 1.1
PROBED = 40


def tasks(
    name: str, method: Method, problem: Problem, splits: Sequence[Split], ledger: Ledger, seeds: Sequence[int] = SEEDS
) -> list[Task]:
    """The fitting problems of the first seeds, one for each split."""
    specs = (RunSpec(dataset=problem.name, method=name, seed=seed, n_train=N, n_test=N_TEST) for seed in seeds)
    return [make_task(method, problem, *each, ledger) for each in zip(splits, specs, strict=False)]


def fits(method: Method, of: Sequence[Task]) -> Iterator[Sequence[Fitted]]:
    """What is learned after each step: as one program, if the method can."""
    return iter(method.fit_together(of)) if method.stacks else zip(*map(method.fit, of), strict=True)


def steps_for(name: str, problem: Problem, split: Split) -> list[int]:
    """The numbers of steps that cost as much as each of COSTS, from the mean cost of some steps."""
    method, ledger = registry().make_method(name), CountingLedger()
    (task,) = tasks(name, method, problem, [split], ledger)
    ledger.start()
    for _ in zip(range(PROBED), method.fit(task)):  # noqa: B905 - stops at the shorter one
        pass
    ledger.stop()
    return [max(1, round(cost / (ledger.flops / PROBED))) for cost in COSTS]


def compared(name: str, dataset: str, seeds: Sequence[int] = SEEDS) -> Iterator[dict[str, object]]:
    """The gaps of each seed at each cost, in nats, as rows."""
    problem: Problem = datasets.load(dataset)
    splits = [draw(problem, seed, N, N, N_TEST) for seed in seeds]
    truth = [true_likelihood(problem, split.test, 0).value for split in splits]
    lengths = steps_for(name, problem, splits[0])

    def gaps(fitted: Sequence[Fitted]) -> list[float]:
        with torch.no_grad():
            return [
                float((t - learned_likelihood(f, s.test, problem.latent_dim, 0).value).mean())
                for t, f, s in zip(truth, fitted, splits, strict=True)
            ]

    def rows(schedule: str, steps: int, fitted: Sequence[Fitted]) -> Iterator[dict[str, object]]:
        cost = COSTS[lengths.index(steps)]
        for seed, gap in zip(seeds, gaps(fitted), strict=True):
            yield {"dataset": dataset, "schedule": schedule, "flops": cost, "steps": steps, "seed": seed, "gap": gap}

    anytime = registry().make_method(name, {"steps": lengths[-1]})
    for step, fitted in enumerate(fits(anytime, tasks(name, anytime, problem, splits, NullLedger(), seeds)), 1):
        if step in lengths:
            yield from rows("anytime", step, fitted)
    for steps in lengths:
        cosine = registry().make_method(name, {"steps": steps, "schedule": "cosine"})
        *_, fitted = fits(cosine, tasks(name, cosine, problem, splits, NullLedger(), seeds))
        yield from rows("cosine", steps, fitted)


def behind(middle: pd.DataFrame) -> pd.Series:
    """Whether the anytime run is behind, at each dataset and cost, by median gaps with a column for each schedule."""
    return middle["anytime"] > np.maximum(middle["cosine"] * FACTOR, middle["cosine"] + SLACK)


def ratios(middle: pd.DataFrame) -> pd.Series:
    """The anytime run's gap over the cosine's, which counts as 0.01 nats at least."""
    return middle["anytime"] / middle["cosine"].clip(lower=SLACK)


def verdict(table: pd.DataFrame) -> str:
    """Where the median of the anytime run is behind, in words."""
    middle = table.groupby(["dataset", "flops", "schedule"])["gap"].median().unstack()
    late = behind(middle).groupby(level=0)
    level, last = [name for name, each in late if not each.any()], late.last()
    return (
        f"level or ahead at all costs on {len(level)} of {len(last)} ({', '.join(map(str, level))}); at most "
        f"{ratios(middle).max():.2f} times the cosine's gap; at the end behind on {int(last.sum())}"
    )


def difference_at_the_end(table: pd.DataFrame) -> tuple[float, float, float, int]:
    """Anytime less cosine at the same seeds, at the highest cost: the median, its 95 % interval, and the seeds."""
    last = table[table["flops"] == table["flops"].max()].pivot(index="seed", columns="schedule", values="gap")
    each = (last["anytime"] - last["cosine"]).to_numpy()
    low, high = bounds([each], np.median)
    return float(np.median(each)), float(low), float(high), len(each)


def at_the_end(table: pd.DataFrame) -> str:
    """The difference at the end in words."""
    middle, low, high, seeds = difference_at_the_end(table)
    return f"at the end {middle:+.3f} [{low:+.3f}, {high:+.3f}] nats over {seeds} seeds"


def write(path: Path, found: pd.DataFrame) -> None:
    """Write rows in place of those of the same problems and seeds that the file has; all others stay."""
    old = pd.read_csv(path) if path.exists() else found.iloc[:0]
    run = ["dataset", "seed"]
    others = old[~old.set_index(run).index.isin(found.set_index(run).index)]
    pd.concat([each for each in (others, found) if len(each)]).to_csv(path, index=False)


def main(names: Sequence[str], problems: Sequence[str], seeds: Sequence[int]) -> None:
    """Compare each method, and write its table."""
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    for name in names:
        found: list[dict[str, object]] = []
        for dataset in problems:
            new = list(compared(name, dataset, seeds))
            found += new
            for schedule in ("anytime", "cosine"):
                of = pd.DataFrame(new).query("schedule == @schedule").groupby("flops")["gap"]
                print(f"{name:14} {dataset:12} {schedule:8}", *(f"{median(each):8.3f}" for _, each in of), flush=True)
            print(f"{name:14} {dataset:12} {at_the_end(pd.DataFrame(new))}", flush=True)
            write(OUT / f"{name}.csv", pd.DataFrame(found))
        print(f"{name}: {verdict(pd.DataFrame(found))}", flush=True)


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("methods", nargs="*", default=["vae"])
    asked.add_argument("--datasets", default=",".join((*datasets.CURVES, *datasets.SURFACES)))
    asked.add_argument("--seeds", default=f"{SEEDS.start}:{SEEDS.stop}")
    given = asked.parse_args()
    try:
        for name in given.methods:
            registry().make_method(name, {"schedule": "cosine"})
    except UsageError as error:
        asked.error(str(error))
    main(given.methods, given.datasets.split(","), range(*map(int, given.seeds.split(":"))))

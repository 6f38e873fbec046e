"""Finds what methods reach at the end of a fit, and what it costs, without the dearer metrics of a study.

For each method label, problem and seed: log p of 500 test points, the oracle gap where the true model is known, the
inference gap with 100 draws, and the FLOPs of the fit. The noise is known where the problem knows it. Seeds are fitted
one by one. Adds the rows that are missing to results/reference/gaps/NAME.csv, and prints medians.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pandas as pd
import torch

import datasets
from bench.fit.flop_counter import CountingLedger
from bench.fit.task import make_task
from bench.fitting import last_state
from bench.metrics.likelihood import encoded, learned_likelihood, true_likelihood
from bench.registry.registry import registry
from bench.store.records import RunSpec
from datasets.base import Problem, draw

OUT = Path(__file__).parents[1] / "results" / "reference" / "gaps"
POINTS, DRAWS = 500, 100


def fitted(label: str, dataset: str, seed: int, n_train: int, budget: float) -> dict[str, object]:
    """One row of the table; the fit ends at the budget, in FLOPs."""
    known = registry()
    source, method = known.make_problem(dataset, None), known.make_method(label)
    problem = source if isinstance(source, Problem) else None
    noise = "known" if problem else "learned"
    spec = RunSpec(dataset=dataset, method=label, seed=seed, n_train=n_train, observation_noise=noise)
    split, ledger = draw(source, seed, n_train, POINTS, POINTS), CountingLedger()
    task = make_task(method, source, split, spec, ledger)
    final, test = last_state(method, task, ledger, budget), split.test
    if final is None:
        raise ValueError(f"{label} yielded no state on {dataset}")
    with torch.no_grad():
        learned = learned_likelihood(final, test, source.latent_dim, seed).value
        gap = float((true_likelihood(problem, test, seed).value - learned).mean()) if problem else math.nan
        loss = float((learned - encoded(final, test, DRAWS, seed).elbo).mean())
    row = {"method": label, "dataset": dataset, "seed": seed, "flops": ledger.flops}
    return row | {"test_ll": float(learned.mean()), "oracle_gap": gap, "inference_gap": loss}


def main() -> None:
    """Fit what is missing, and print the medians."""
    torch.set_num_threads(1)
    asked = _arguments()
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{asked.name}.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    for dataset in asked.datasets:
        for label in asked.methods:
            for seed in range(asked.seeds):
                done = {(row["method"], row["dataset"], row["seed"]): row["flops"] for row in rows}
                if (label, dataset, seed) not in done:
                    budget = done.get((asked.methods[0], dataset, seed), math.inf) if asked.equal_flops else math.inf
                    rows.append(fitted(label, dataset, seed, asked.n_train, budget))
                    pd.DataFrame(rows).to_csv(path, index=False)
            mine = pd.DataFrame(rows).query("method == @label and dataset == @dataset")
            middle = mine[["test_ll", "oracle_gap", "inference_gap", "flops"]].median()
            print(f"{label:24} {dataset:36} " + " ".join(f"{value:10.4g}" for value in middle), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the table to add to")
    parser.add_argument("methods", nargs="+", help="labels of methods")
    parser.add_argument("-d", "--datasets", nargs="+", default=[*datasets.SURFACES, *datasets.CURVES])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--n-train", type=int, default=500)
    parser.add_argument("--equal-flops", action="store_true", help="end each fit at the cost of the first method's")
    return parser.parse_args()


if __name__ == "__main__":
    main()

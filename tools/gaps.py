"""Finds what methods reach at the end of a fit, and what it costs, without the dearer metrics of a study.

python -m tools.gaps NAME METHOD ...

For each method label, nine problems and ten seeds: the oracle gap on 500 test points, the inference gap with 100 draws,
and the FLOPs of the fit, with 500 training points and the noise known. Seeds are fitted one by one. Adds the rows that
are missing to results/reference/gaps/NAME.csv, and prints medians.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pandas as pd
import torch

import datasets
from bench.fit.flop_counter import CountingLedger
from bench.fit.runner import make_task
from bench.metrics.likelihood import encoded, learned_likelihood, true_likelihood
from bench.registry.registry import registry
from bench.store.records import RunSpec
from datasets.base import draw
from methods.contract.method import Fitted

OUT = Path(__file__).parents[1] / "results" / "reference" / "gaps"
SEEDS = range(10)
N, DRAWS = 500, 100


def fitted(label: str, dataset: str, seed: int) -> dict[str, object]:
    """One row of the table."""
    problem, method = datasets.load(dataset), registry().make_method(label)
    if not isinstance(problem, datasets.base.Problem):
        raise TypeError(f"the true model of {dataset} is not known")
    split, ledger = draw(problem, seed, N, N, N), CountingLedger()
    task = make_task(method, problem, split, RunSpec(dataset=dataset, method=label, seed=seed, n_train=N), ledger)
    final: Fitted
    ledger.start()
    try:
        for each in method.fit(task):
            final = each
    finally:
        ledger.stop()
    test = split.test
    with torch.no_grad():
        learned = learned_likelihood(final, test, problem.latent_dim, seed).value
        gap = true_likelihood(problem, test, seed).value - learned
        loss = learned - encoded(final, test, DRAWS, seed).elbo
    found = {"oracle_gap": float(gap.mean()), "inference_gap": float(loss.mean()), "flops": ledger.flops}
    return {"method": label, "dataset": dataset, "seed": seed, **found}


def main(name: str, labels: Sequence[str]) -> None:
    """Fit what is missing, and print the medians."""
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    have = {(row["method"], row["dataset"], row["seed"]) for row in rows}
    for dataset in chain(datasets.SURFACES, datasets.CURVES):
        for label in labels:
            for seed in SEEDS:
                if (label, dataset, seed) not in have:
                    rows.append(fitted(label, dataset, seed))
            pd.DataFrame(rows).to_csv(path, index=False)
            mine = pd.DataFrame(rows).query("method == @label and dataset == @dataset")
            middle = mine[["oracle_gap", "inference_gap", "flops"]].median()
            print(f"{label:24} {dataset:12} " + " ".join(f"{value:10.4g}" for value in middle), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

"""Checks the stacked trainer on a GPU: its values against the CPU's, and its speed for 1, 10 and 100 seeds.

python -m tools.gpu_check [DEVICE]

DEVICE is cuda by default. Takes under four minutes. Exit code 1 if values differ, 2 if there is no such device.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice

import torch

import datasets
from bench.fit.task import make_task
from bench.registry.registry import registry
from bench.store.records import RunSpec
from datasets.base import draw
from methods.contract.method import Fitted, NullLedger, Task

METHODS = ("vae", "iterative", "iwae")
STEPS, TIMED, FIRST = 100, 200, 20
SEEDS = 10
NATS = 1e-2
REPLICAS = (1, 10, 100)


def tasks(name: str, dataset: str, seeds: Sequence[int], device: str) -> list[Task]:
    """The fitting problems of some seeds on a device."""
    problem, method = datasets.load(dataset), registry().make_method(name)
    found = []
    for seed in seeds:
        spec = RunSpec(dataset=dataset, method=name, seed=seed, n_train=500, n_test=2, device=device)
        found.append(make_task(method, problem, draw(problem, seed, 500, 500, 2), spec, NullLedger()))
    return found


def bounds(fitted: Sequence[Fitted], of: Sequence[Task]) -> torch.Tensor:
    """The log-likelihood of the validation points up to a constant, by 2,000 codes of the prior, for each seed."""
    found = []
    for each, task in zip(fitted, of, strict=True):
        z = torch.randn(2000, task.latent_dim, generator=torch.Generator().manual_seed(0)).to(task.train.device)
        with torch.no_grad():
            squared = torch.cdist(task.validation, each.model.decode(z)).square()
        exponents = -squared.double() / (2 * each.model.variance())
        found.append(torch.logsumexp(exponents, 1).mean().cpu())
    return torch.stack(found)


def steps(name: str, dataset: str, seeds: Sequence[int], device: str) -> tuple[Iterator[Sequence[Fitted]], list[Task]]:
    """A stacked fit that has not begun, and its tasks."""
    of = tasks(name, dataset, seeds, device)
    return iter(registry().make_method(name).fit_together(of)), of


def main(device: str) -> int:
    """Print what is found; returns the exit code."""
    if device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is found")
        return 2
    torch.set_num_threads(1)
    apart = 0.0
    for name in METHODS:
        means = []
        for where in ("cpu", device):
            fit, of = steps(name, "circle", range(SEEDS), where)
            *_, fitted = islice(fit, STEPS)
            means.append(bounds(fitted, of))
        difference = float((means[0].mean() - means[1].mean()).abs())
        spread = float(torch.cat(means).std())
        apart = max(apart, difference / max(spread, NATS))
        print(
            f"{name}: log-likelihood of {SEEDS} seeds after {STEPS} steps, {device} against cpu: {difference:.4f} nats"
        )
    for dataset in ("circle", "swiss_roll"):
        for count in REPLICAS:
            fit, _ = steps("vae", dataset, range(count), device)
            for _ in range(FIRST):
                next(fit)
            synchronise(device)
            start = time.perf_counter()
            for _ in range(TIMED):
                next(fit)
            synchronise(device)
            seconds = (time.perf_counter() - start) / TIMED
            print(f"vae on {dataset}, {count} seeds: {seconds * 1e3:.3f} ms a step, {seconds / count * 1e3:.4f} a seed")
    return int(apart > 1)


def synchronise(device: str) -> None:
    """Wait until the device has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "cuda"))

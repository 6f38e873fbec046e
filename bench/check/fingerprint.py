"""What was learned, as numbers, by which two fits are compared."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.process.containment import contained
from datasets.base import Problem, draw
from methods.contract.method import Fitted

CODES = 20


@torch.no_grad()
def fingerprint(fitted: Fitted, problem: Problem, elsewhere: int = 0) -> list[Tensor]:
    """What has been learned: decoded codes and noise, and draws of the posterior with their densities.

    elsewhere: the seed of the global generators.
    """
    with contained(elsewhere):
        return _fingerprint(fitted, problem)


def _fingerprint(fitted: Fitted, problem: Problem) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    codes = torch.randn(CODES, problem.latent_dim, generator=generator)
    z, log_q = fitted.posterior.sample(draw(problem, 9, 1, 1, CODES).test.float(), 4, generator)
    variance = torch.tensor(fitted.model.variance(), dtype=torch.float64)
    return [t.detach().double().cpu() for t in (fitted.model.decode(codes), variance, z, log_q)]


def differing(first: list[Tensor], second: list[Tensor]) -> int:
    """How many numbers of two fingerprints differ in any bit that matters; nan equals nan."""
    pairs = zip(first, second, strict=True)
    return sum(int((~torch.isclose(a, b, rtol=0, atol=0, equal_nan=True)).sum()) for a, b in pairs)


def count(numbers: list[Tensor]) -> int:
    """How many numbers there are."""
    return sum(each.numel() for each in numbers)


def all_finite(numbers: list[Tensor]) -> bool:
    """Whether there is neither nan nor infinity among them."""
    return all(bool(torch.isfinite(each).all()) for each in numbers)

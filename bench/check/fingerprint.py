"""What a fit has learned, as numbers, so that two fits can be compared bit by bit."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.process.containment import contained
from datasets.base import Problem, draw
from methods.contract.method import Fitted, likelihood_of

CODES = 20


@torch.no_grad()
def fingerprint(fitted: Fitted, problem: Problem, global_seed: int = 0) -> list[Tensor]:
    """The numbers by which two fits are compared.

    Args:
        fitted: What a method has learned.
        problem: The true model, from which test points are drawn.
        global_seed: The seed of the global random generators while the numbers are computed.

    Returns:
        Decoded codes, the noise variance, draws of the posterior, and their log-densities.
    """
    with contained(global_seed):
        generator = torch.Generator().manual_seed(5)
        codes = torch.randn(CODES, problem.latent_dim, generator=generator)
        z, log_q = fitted.posterior.sample(draw(problem, 9, 1, 1, CODES).test.float(), 4, generator)
        variance = torch.tensor(likelihood_of(fitted.model).dispersion, dtype=torch.float64)
        return [t.detach().double().cpu() for t in (fitted.model.decode(codes), variance, z, log_q)]


def differing(first: list[Tensor], second: list[Tensor]) -> int:
    """How many numbers of two fingerprints differ; nan equals nan, and 0 equals -0."""
    pairs = zip(first, second, strict=True)
    return sum(int((~torch.isclose(a, b, rtol=0, atol=0, equal_nan=True)).sum()) for a, b in pairs)


def count(numbers: list[Tensor]) -> int:
    """How many numbers a fingerprint has."""
    return sum(each.numel() for each in numbers)


def all_finite(numbers: list[Tensor]) -> bool:
    """Whether no number of a fingerprint is nan or infinite."""
    return all(bool(torch.isfinite(each).all()) for each in numbers)

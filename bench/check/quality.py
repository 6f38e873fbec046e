"""Checks of what a method learns: its bound is below log p(x), and its model improves, but not beyond the truth."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial import KDTree
from scipy.special import digamma, gammaln
from torch import Tensor

from bench.check.errors import FailedError
from bench.check.method_under_test import N_TEST, MethodUnderTest
from bench.metrics.likelihood import Draws, learned_likelihood, true_likelihood
from bench.metrics.measurement import standard_error
from datasets.base import draw
from methods.common.posteriors import Prior
from methods.contract.method import Fitted, Posterior

ERRORS = 4
POINTS, PER_POINT = 100, 200
DENSITY_DRAWS, NEIGHBOURS, DENSITY_TOLERANCE = 20_000, 4, 0.1


def bound(under_test: MethodUnderTest) -> str:
    """The bound by q(z | x) is below log p(x), and log q is the log-density of the draws.

    Args:
        under_test: The method.

    Returns:
        What was seen.

    Raises:
        FailedError: If log q or the bound is wrong by more than chance allows.
    """
    seen = []
    for label in under_test.accepted("circle", "s_curve", "binary_curve", "count_curve"):
        problem = under_test.problem(label)
        # The bound of a long fit is the closest to log p(x).
        fitted = under_test.long.fitted if label == under_test.default_dataset else under_test.fit(label).run()
        off = density_error(fitted.posterior, draw(problem, 1, 1, 1, 2).test.float())
        if not abs(off) < DENSITY_TOLERANCE:
            raise FailedError(
                f"{label}: log q differs by {off:+.2f} nats from the log-density of its draws; "
                f"expected {DENSITY_TOLERANCE} at most"
            )
        gap, error = bound_gap(fitted, draw(problem, 4, 1, 1, POINTS).test, problem.latent_dim)
        if not gap > -error:
            raise FailedError(
                f"{label}: the bound is {-gap:.3f} nats above log p(x); expected {error:.3f} at most, by chance"
            )
        seen.append(f"{label}: {gap:.3f} nats below log p(x), log q {off:+.3f} nats off its draws")
    return "; ".join(seen)


@torch.no_grad()
def bound_gap(fitted: Fitted, x: Tensor, latent_dim: int) -> tuple[float, float]:
    """How far the bound is below log p(x), on average.

    Args:
        fitted: What a method has learned.
        x: Points, (n, D).
        latent_dim: L, the dimension of z.

    Returns:
        Mean of log p(x) minus the bound, in nats, and by how much chance and quadrature can make it negative.
    """
    terms = Draws.of(fitted, x, PER_POINT, torch.Generator().manual_seed(1)).bounds
    exact = learned_likelihood(fitted, x, latent_dim, 0)
    chance = float(terms.mean(1).std()) / math.sqrt(PER_POINT)
    return float((exact.value - terms.mean(0)).mean()), ERRORS * chance + float(exact.error.mean())


@torch.no_grad()
def density_error(posterior: Posterior, x: Tensor) -> float:
    """The mean over draws of their true log-density minus the stated log q.

    The true log-density is estimated from distances to the fourth nearest draw (Kozachenko & Leonenko 1987). If the
    stated density integrates to one, the result is KL(draws || stated), which is 0 only for the right density.

    Args:
        posterior: The posterior.
        x: Points, (n, D).

    Returns:
        Nats, at the point where the error is largest.
    """
    z, log_q = posterior.sample(x, DENSITY_DRAWS, torch.Generator().manual_seed(3))
    errors = [_log_density(z[:, i].double().numpy()) - float(log_q[:, i].double().mean()) for i in range(len(x))]
    return max(errors, key=abs)


def _log_density(z: np.ndarray) -> float:
    """Estimate of the mean log-density of draws (n, L), in nats."""
    n, dim = z.shape
    distance = KDTree(z).query(z, NEIGHBOURS + 1)[0][:, -1]
    ball = dim / 2 * math.log(math.pi) - gammaln(dim / 2 + 1)
    with np.errstate(divide="ignore"):
        return float(digamma(NEIGHBOURS) - digamma(n) - ball - dim * np.log(distance).mean())


def learning(under_test: MethodUnderTest) -> str:
    """On held-out data, the fitted model is better than the initial one and not better than the true model.

    Args:
        under_test: The method.

    Returns:
        What was seen.

    Raises:
        FailedError: If held-out log p(x) does not rise, or exceeds that of the true model.
    """
    problem = under_test.problem(under_test.default_dataset)
    x, latent = draw(problem, 0, 1, 1, N_TEST).test, problem.latent_dim
    models = (Fitted(under_test.long.initial_model, Prior(latent)), under_test.long.fitted)
    with torch.no_grad():
        before, after = (learned_likelihood(each, x, latent, 0) for each in models)
    truth = true_likelihood(problem, x, 0)
    gain, lead = after.value - before.value, after.value - truth.value
    if not float(gain.mean()) > ERRORS * standard_error(gain):
        raise FailedError(f"held-out log p(x) changes by {gain.mean():+.3f} nats in the fit; expected a rise")
    if not float(lead.mean()) < ERRORS * standard_error(lead) + float((after.error + truth.error).mean()):
        raise FailedError(f"held-out log p(x) is {lead.mean():.3f} nats above the true model's; expected it below")
    return (
        f"held-out log p(x) is {gain.mean():.2f} nats above the initial model's, {-lead.mean():.3f} below the truth's"
    )

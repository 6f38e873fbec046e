"""Duties on what a method learns: a bound that is one, and a model that gains, but not on the truth."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial import KDTree
from scipy.special import digamma, gammaln
from torch import Tensor

from bench.check.errors import FailedError
from bench.check.method_under_test import TEST_SIZE, Subject
from bench.metrics.likelihood import learned_likelihood, true_likelihood
from bench.metrics.measurement import standard_error
from datasets.base import draw
from methods.common.posteriors import Prior
from methods.contract.decoder import gaussian_log_prob, standard_normal_log_prob
from methods.contract.method import Fitted, Posterior

ERRORS = 4
POINTS, PER_POINT = 100, 200
DENSITY_DRAWS, NEIGHBOURS, DENSITY_TOLERANCE = 20_000, 4, 0.1


def bound(subject: Subject) -> str:
    """The bound under q(z | x) is below log p(x), and the density stated of draws from q is theirs."""
    seen = []
    for label in subject.accepted("circle", "s_curve"):
        problem, fitted = subject.problem(label), _fitted(subject, label)
        off = density_error(fitted.posterior, draw(problem, 1, 1, 1, 2).test.float())
        if not abs(off) < DENSITY_TOLERANCE:
            raise FailedError(f"{label}: log q is {off:+.2f} nats off its draws'; expected {DENSITY_TOLERANCE} at most")
        gap, error = bound_gap(fitted, draw(problem, 4, 1, 1, POINTS).test, problem.latent_dim)
        if not gap > -error:
            raise FailedError(
                f"{label}: the bound is {-gap:.3f} nats above log p(x); expected below, within {error:.3f}"
            )
        seen.append(f"{label}: {gap:.3f} nats below log p(x), log q {off:+.3f} off its draws")
    return "; ".join(seen)


def _fitted(subject: Subject, label: str) -> Fitted:
    """The long fit, which leaves the bound the least room, where that is of these data; else a short one."""
    if label == subject.home:
        return subject.long.fitted
    return subject.trial(label).drive()


@torch.no_grad()
def bound_gap(fitted: Fitted, x: Tensor, latent_dim: int) -> tuple[float, float]:
    """Mean of log p(x) less the bound, over points (n, D), in nats, and by how much chance can make it negative."""
    z, log_q = fitted.posterior.sample(x.float(), PER_POINT, torch.Generator().manual_seed(1))
    log_noise = torch.tensor(math.log(fitted.model.variance()), dtype=torch.float64)
    joint = gaussian_log_prob(x - fitted.model.decode(z).double(), log_noise) + standard_normal_log_prob(z.double())
    terms = joint - log_q.double()
    exact = learned_likelihood(fitted, x, latent_dim, 0)
    chance = float(terms.mean(1).std()) / math.sqrt(PER_POINT)
    return float((exact.value - terms.mean(0)).mean()), ERRORS * chance + float(exact.error.mean())


@torch.no_grad()
def density_error(posterior: Posterior, x: Tensor) -> float:
    """Mean over draws of their true log-density less that stated, in nats, at the point (n, D) where it is worst.

    The true one is estimated by distances to the fourth nearest draw (Kozachenko & Leonenko 1987). If the density
    stated integrates to one, this is KL(draws || stated), which is 0 for the right one alone.
    """
    z, log_q = posterior.sample(x, DENSITY_DRAWS, torch.Generator().manual_seed(3))
    errors = [_log_density(z[:, i].double().numpy()) - float(log_q[:, i].double().mean()) for i in range(len(x))]
    return max(errors, key=abs)


def _log_density(z: np.ndarray) -> float:
    """The mean log-density of draws (n, L), in nats."""
    n, dim = z.shape
    distance = KDTree(z).query(z, NEIGHBOURS + 1)[0][:, -1]
    ball = dim / 2 * math.log(math.pi) - gammaln(dim / 2 + 1)
    with np.errstate(divide="ignore"):
        return float(digamma(NEIGHBOURS) - digamma(n) - ball - dim * np.log(distance).mean())


def better(subject: Subject) -> str:
    """On held-out data better than the initial weights, and not better than the true model."""
    problem = subject.problem(subject.home)
    x, latent = draw(problem, 0, 1, 1, TEST_SIZE).test, problem.latent_dim
    models = (Fitted(subject.long.begun, Prior(latent)), subject.long.fitted)
    with torch.no_grad():
        before, after = (learned_likelihood(each, x, latent, 0) for each in models)
    truth = true_likelihood(problem, x, 0)
    gain, lead = after.value - before.value, after.value - truth.value
    if not float(gain.mean()) > ERRORS * standard_error(gain):
        raise FailedError(f"held-out log p(x) is {gain.mean():+.3f} nats above the initial weights'; expected a gain")
    if not float(lead.mean()) < ERRORS * standard_error(lead) + float((after.error + truth.error).mean()):
        raise FailedError(f"held-out log p(x) is {lead.mean():.3f} nats above the true model's; expected below")
    return (
        f"held-out log p(x) is {gain.mean():.2f} nats above the initial weights', {-lead.mean():.3f} below the truth's"
    )

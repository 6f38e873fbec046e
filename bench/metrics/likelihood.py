"""log p(x) of true and learned models, and the bound that a posterior gives on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.metrics.ais import annealed_log_prob
from bench.metrics.importance import Sampled, importance_log_prob
from bench.metrics.laplace import LaplaceMixture
from bench.metrics.measurement import NotFiniteError, standard_error
from datasets.base import Problem
from datasets.quadrature import log_marginal, normal_codebook
from methods.contract.decoder import gaussian_log_prob, standard_normal_log_prob
from methods.contract.method import DecoderModel, Fitted, Posterior

TOLERANCE = 1e-3
EXACT_UP_TO = 2
EXACT_DATA_DIM = 100
IMPORTANCE_DRAWS = 1000
FEWER_DRAWS = 200
ANNEALED_POINTS = 50
FEWER_ANNEALED_POINTS = 10
MOST_KHAT = 0.7
POINTS_AT_ONCE = 500
DENSITY_CODES = 4096


@dataclass(frozen=True)
class TrueModel:
    """A problem's own model, for the methods that are handed the truth."""

    problem: Problem

    def decode(self, z: Tensor) -> Tensor:
        """The mean of x given z: (..., L) -> (..., D)."""
        return self.problem.decoder(z.double())

    def variance(self) -> float:
        """The noise variance s2."""
        return self.problem.noise_variance


@dataclass(frozen=True)
class Likelihood:
    """log p(x) of some points in nats, (n,), and how wrong each is expected to be, (n,), leaving chance aside.

    That is the numerical error of a quadrature, or the bias of the log of a random estimate. diagnostics: what tells
    whether the estimator worked.
    """

    value: Tensor
    error: Tensor
    diagnostics: dict[str, float]


def by_quadrature(latent_dim: int, data_dim: int) -> bool:
    """Whether a grid of latent space is affordable: for L <= 2, and D <= 100, above which posteriors are too narrow."""
    return latent_dim <= EXACT_UP_TO and data_dim <= EXACT_DATA_DIM


def true_likelihood(problem: Problem, x: Tensor, seed: int) -> Likelihood:
    """log p(x) under the true model for x (n, D): in closed form, by quadrature, or as in `tightest`."""
    if problem.exact_log_prob is None and not by_quadrature(problem.latent_dim, problem.data_dim):
        model = TrueModel(problem)
        return tightest(model, [LaplaceMixture(model, problem.latent_dim)], x, problem.latent_dim, seed)
    found = problem.log_prob(x, TOLERANCE)
    return Likelihood(found.value, found.error, {"numerical_error": float(found.error.mean())})


def learned_likelihood(fitted: Fitted, x: Tensor, latent_dim: int, seed: int) -> Likelihood:
    """log p(x) under a learned model for x (n, D): by quadrature for L <= 2 and D <= 100, else as in `sampled`.

    Raises NotFiniteError for a decoder or a noise that is not finite.
    """
    model = fitted.model
    probe = model.decode(torch.zeros(1, latent_dim, dtype=torch.float64))
    if not torch.isfinite(probe).all() or not math.isfinite(model.variance()):
        raise NotFiniteError("the decoder gives values that are not finite")
    if not by_quadrature(latent_dim, x.shape[1]):
        return sampled(fitted, x, latent_dim, seed)
    decode = lambda z: model.decode(z).double().cpu()  # noqa: E731
    found = log_marginal(decode, model.variance(), x.double().cpu(), latent_dim, TOLERANCE)
    return Likelihood(found.value, found.error, {"numerical_error": float(found.error.mean())})


def sampled(fitted: Fitted, x: Tensor, latent_dim: int, seed: int) -> Likelihood:
    """log p(x) for x (n, D) under a learned model, as in `tightest`, with its q(z | x) as the second proposal."""
    proposals = (LaplaceMixture(fitted.model, latent_dim), fitted.posterior)
    return tightest(fitted.model, proposals, x, latent_dim, seed)


def tightest(model: DecoderModel, proposals: Sequence[Posterior], x: Tensor, latent_dim: int, seed: int) -> Likelihood:
    """log p(x) for x (n, D) by the tightest of several lower bounds in expectation, the one of the highest mean over x.

    Importance sampling is precise where a proposal is near the posterior, but misses what that misses, which no weight
    tells. Annealing from the prior does not depend on a proposal (Wu et al. 2017): where it is higher on some of x by
    more than two standard errors of the mean difference, it is taken for all.
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    small = x.shape[1] <= EXACT_DATA_DIM
    draws, checked = (IMPORTANCE_DRAWS, ANNEALED_POINTS) if small else (FEWER_DRAWS, FEWER_ANNEALED_POINTS)
    each = [importance_log_prob(model, q, x, draws, generator) for q in proposals]
    best = max(each, key=_tightness)
    annealed = annealed_log_prob(model, x[:checked], latent_dim, generator)
    lead = annealed.value - best.value[:checked]
    diagnostics = {
        "importance_less_annealed": -float(lead.mean()),
        "laplace_less_importance": float((each[0].value - each[-1].value).mean()),
        "khat_median": float(best.khat.median()),
        "khat_above_0.7": float((best.khat > MOST_KHAT).double().mean()),
        "ess_median": float(best.ess.median()),
    }
    if not float(lead.mean()) <= 2 * standard_error(lead):  # which holds for nan
        best = annealed_log_prob(model, x, latent_dim, generator)
    return _random(best, diagnostics)


def _tightness(found: Sampled) -> float:
    value = float(found.value.mean())
    return -math.inf if math.isnan(value) else value


def _random(found: Sampled, diagnostics: dict[str, float]) -> Likelihood:
    """A random estimate of p(x) without bias, whose log is too low by half its squared error on average."""
    bias = found.error.square() / 2
    diagnostics |= {"standard_error": float(found.error.mean()), "bias": float(bias.mean())}
    return Likelihood(found.value, bias, diagnostics)


def elbo(fitted: Fitted, x: Tensor, draws: int, seed: int) -> Tensor:
    """E_q [log p(x | z) + log p(z) - log q(z | x)] of each x (n, D), from `draws` draws of z each: (n,), on the CPU."""
    generator = torch.Generator(x.device).manual_seed(seed)
    return torch.cat([_elbo(fitted, part, draws, generator) for part in x.split(POINTS_AT_ONCE)])


def _elbo(fitted: Fitted, x: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    z, log_q = fitted.posterior.sample(x, draws, generator)
    residual = (x - fitted.model.decode(z)).double().cpu()
    log_noise = torch.tensor(math.log(fitted.model.variance()), dtype=torch.float64)
    log_joint = gaussian_log_prob(residual, log_noise) + standard_normal_log_prob(z.double()).cpu()
    return (log_joint - log_q.double().cpu()).mean(0)


def density_grid(model: DecoderModel, latent_dim: int, low: Tensor, high: Tensor, points: int) -> list[list[float]]:
    """Rows (x1, x2, log p(x)) on a square grid of the plane between two corners, to look at.

    p(x) is the mean of N(x; f(z), s2 I) over codes spread evenly under the prior: right where there is any to see, and
    unlike the quadrature indifferent to the relative error where there is none.
    """
    axes = [torch.linspace(float(a), float(b), points, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    grid = torch.cartesian_prod(*axes)
    with torch.no_grad():
        centres = model.decode(normal_codebook(DENSITY_CODES, latent_dim)).double().cpu()
    log_noise = torch.tensor(math.log(model.variance()), dtype=torch.float64)
    constant = gaussian_log_prob(torch.zeros(1, 2, dtype=torch.float64), log_noise) - math.log(DENSITY_CODES)
    exponents = (torch.cdist(part, centres).square() / (-2 * model.variance()) for part in grid.split(512))
    value = torch.cat([torch.logsumexp(part, 1) for part in exponents]) + constant
    return torch.cat([grid, value[:, None]], 1).tolist()

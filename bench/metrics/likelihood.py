"""log p(x) of true and learned models, and the bound that a posterior gives on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.metrics.annealed import annealed_log_prob
from bench.metrics.importance import Sampled, importance_log_prob
from bench.metrics.measurement import NotFiniteError
from datasets.base import Problem
from datasets.quadrature import log_marginal, normal_codebook
from methods.base import DecoderModel, Fitted
from methods.model import gaussian_log_prob, standard_normal_log_prob

TOLERANCE = 1e-3
EXACT_UP_TO = 2
IMPORTANCE_DRAWS = 1000
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
        return self.problem.noise


@dataclass(frozen=True)
class Likelihood:
    """log p(x) of some points in nats, (n,), and how wrong each is expected to be, (n,), leaving chance aside.

    That is the numerical error of a quadrature, or the bias of the log of a random estimate. diagnostics: what tells
    whether the estimator worked.
    """

    value: Tensor
    error: Tensor
    diagnostics: dict[str, float]


def true_likelihood(problem: Problem, x: Tensor, seed: int) -> Likelihood:
    """log p(x) under the true model for x (n, D): in closed form, by quadrature, or by annealed importance sampling."""
    if problem.exact_log_prob is None and problem.latent_dim > EXACT_UP_TO:
        generator = torch.Generator().manual_seed(seed)
        return _random(annealed_log_prob(TrueModel(problem), x, problem.latent_dim, generator), {})
    found = problem.log_prob(x, TOLERANCE)
    return Likelihood(found.value, found.error, {"numerical_error": float(found.error.mean())})


def learned_likelihood(fitted: Fitted, x: Tensor, latent_dim: int, seed: int) -> Likelihood:
    """log p(x) under a learned model for x (n, D): by quadrature for L <= 2, else as in `sampled`.

    Raises NotFiniteError for a decoder or a noise that is not finite.
    """
    model = fitted.model
    probe = model.decode(torch.zeros(1, latent_dim, dtype=torch.float64))
    if not torch.isfinite(probe).all() or not math.isfinite(model.variance()):
        raise NotFiniteError("the decoder gives values that are not finite")
    if latent_dim > EXACT_UP_TO:
        return sampled(fitted, x, latent_dim, seed)
    decode = lambda z: model.decode(z).double().cpu()  # noqa: E731
    found = log_marginal(decode, model.variance(), x.double().cpu(), latent_dim, TOLERANCE)
    return Likelihood(found.value, found.error, {"numerical_error": float(found.error.mean())})


def sampled(fitted: Fitted, x: Tensor, latent_dim: int, seed: int) -> Likelihood:
    """log p(x) for x (n, D) by the tighter of two lower bounds in expectation, the one whose mean over x is higher.

    Importance sampling from q(z | x) is exact where q is, but misses what q misses, which no weight tells; annealing
    from the prior does not depend on q (Wu et al. 2017).
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    of_q = importance_log_prob(fitted.model, fitted.posterior, x, IMPORTANCE_DRAWS, generator)
    annealed = annealed_log_prob(fitted.model, x, latent_dim, generator)
    diagnostics = {
        "importance_less_annealed": float((of_q.value - annealed.value).mean()),
        "khat_median": float(of_q.khat.median()),
        "khat_above_0.7": float((of_q.khat > MOST_KHAT).double().mean()),
        "ess_median": float(of_q.ess.median()),
    }
    return _random(of_q if diagnostics["importance_less_annealed"] > 0 else annealed, diagnostics)


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

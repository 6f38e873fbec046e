"""log p(x) of true and learned models, and the ELBO with what else its draws say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.metrics.ais import annealed_log_prob
from bench.metrics.importance import Estimate, importance_log_prob
from bench.metrics.laplace import LaplaceMixture
from bench.metrics.measurement import NotFiniteError, standard_error
from datasets.base import Problem
from datasets.quadrature import log_marginal, normal_codebook
from methods.contract.decoder import standard_normal_log_prob
from methods.contract.method import DecoderModel, Fitted, Posterior, likelihood_of
from methods.likelihoods import Likelihood as Family

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
LEAST_DENSITY = 1e-300


@dataclass(frozen=True)
class TrueModel:
    """The true model of a problem, in the form of a learned model.

    Args:
        problem: The data source.
    """

    problem: Problem

    def decode(self, z: Tensor) -> Tensor:
        """The outputs that p(x | z) depends on, (..., L) -> (..., D).

        Args:
            z: Codes, (..., L).

        Returns:
            Outputs, (..., D), float64: the mean of x in data units, if it is Gaussian.
        """
        return self.problem.decoder(z.double())

    @property
    def likelihood(self) -> Family:
        """p(x | z)."""
        return self.problem.likelihood

    def variance(self) -> float:
        """The noise variance s2 of a Gaussian, in squared data units."""
        return float(self.problem.likelihood.dispersion)


@dataclass(frozen=True)
class Likelihood:
    """log p(x) of some points.

    Args:
        value: log p(x) in nats, (n,).
        error: The systematic error of each value in nats, (n,): the numerical error of a quadrature, or the bias of
            the log of a random estimate.
        diagnostics: Numbers that show whether the estimator worked, by name.
    """

    value: Tensor
    error: Tensor
    diagnostics: dict[str, float]

    def first(self, points: int | None) -> Likelihood:
        """log p(x) of the first points; None for all.

        Args:
            points: The number of points; None for all.

        Returns:
            Their values and errors, (points,), with the diagnostics of all points.
        """
        return Likelihood(self.value[:points], self.error[:points], self.diagnostics)


def by_quadrature(latent_dim: int, data_dim: int) -> bool:
    """Whether log p(x) is found by quadrature: for L <= 2 and D <= 100, above which posteriors are too narrow.

    Args:
        latent_dim: L, the dimension of z.
        data_dim: D, the dimension of x.
    """
    return latent_dim <= EXACT_UP_TO and data_dim <= EXACT_DATA_DIM


def true_likelihood(problem: Problem, x: Tensor, seed: int) -> Likelihood:
    """log p(x) under the true model: in closed form, by quadrature, or as in `tightest`.

    Args:
        problem: The data source.
        x: Points, (n, D).
        seed: The seed of a random estimate.
    """
    if problem.exact_log_prob is None and not by_quadrature(problem.latent_dim, problem.data_dim):
        model = TrueModel(problem)
        return tightest(model, [LaplaceMixture(model, problem.latent_dim)], x, problem.latent_dim, seed)
    found = problem.log_prob(x, TOLERANCE)
    return Likelihood(found.value, found.error, {"numerical_error": float(found.error.mean())})


def learned_likelihood(fitted: Fitted, x: Tensor, latent_dim: int, seed: int) -> Likelihood:
    """log p(x) under a learned model: by quadrature for L <= 2 and D <= 100, else as in `sampled`.

    Args:
        fitted: What the method has learned.
        x: Points, (n, D).
        latent_dim: L, the dimension of z.
        seed: The seed of a random estimate.

    Raises:
        NotFiniteError: If the decoder or the noise variance is not finite.
    """
    model = fitted.model
    probe = model.decode(torch.zeros(1, latent_dim, dtype=torch.float64))
    likelihood = likelihood_of(model)
    if not torch.isfinite(probe).all() or not math.isfinite(likelihood.dispersion):
        raise NotFiniteError("the decoder gives values that are not finite")
    if not by_quadrature(latent_dim, x.shape[1]):
        return sampled(fitted, x, latent_dim, seed)
    decode = lambda z: model.decode(z).double().cpu()  # noqa: E731
    found = log_marginal(decode, likelihood, x.double().cpu(), latent_dim, TOLERANCE)
    return Likelihood(found.value, found.error, {"numerical_error": float(found.error.mean())})


def sampled(fitted: Fitted, x: Tensor, latent_dim: int, seed: int) -> Likelihood:
    """log p(x) under a learned model as in `tightest`, with a Laplace mixture and the method's q(z | x) as proposals.

    Args:
        fitted: What the method has learned.
        x: Points, (n, D).
        latent_dim: L, the dimension of z.
        seed: The seed of the draws.
    """
    proposals = (LaplaceMixture(fitted.model, latent_dim), fitted.posterior)
    return tightest(fitted.model, proposals, x, latent_dim, seed)


def tightest(model: DecoderModel, proposals: Sequence[Posterior], x: Tensor, latent_dim: int, seed: int) -> Likelihood:
    """log p(x) by the tightest of several lower bounds in expectation: the one with the highest mean.

    Args:
        model: The generative model.
        proposals: Distributions of z given x to draw from.
        x: Points, (n, D).
        latent_dim: L, the dimension of z.
        seed: The seed of the draws.
    """
    return estimated(model, proposals, x, latent_dim, seed, tightest_of).likelihood


@dataclass(frozen=True)
class Estimated:
    """log p(x) of some points by random draws.

    Args:
        estimate: The estimate that was chosen.
        proposal: The index of the proposal that it is of; None for annealing.
        diagnostics: Numbers that show whether the estimators worked, by name.
    """

    estimate: Estimate
    proposal: int | None
    diagnostics: dict[str, float]

    @property
    def likelihood(self) -> Likelihood:
        """An unbiased random estimate of p(x): its log is too low by half its squared error on average."""
        bias = self.estimate.error.square() / 2
        spread = {"standard_error": float(self.estimate.error.mean()), "bias": float(bias.mean())}
        return Likelihood(self.estimate.value, bias, self.diagnostics | spread)


def estimated(
    model: DecoderModel,
    proposals: Sequence[Posterior],
    x: Tensor,
    latent_dim: int,
    seed: int,
    choose: Callable[[Sequence[Estimate]], int],
) -> Estimated:
    """log p(x) by importance sampling from one of several proposals, or by annealing where that finds more mass.

    Importance sampling is precise if a proposal is close to the posterior. But it misses any mode that the proposal
    misses, and no weight shows that. Annealing from the prior needs no proposal (Wu et al. 2017). If annealing is
    higher on the first points by more than two standard errors of the mean difference, it is used for all points.

    Args:
        model: The generative model.
        proposals: Distributions of z given x to draw from.
        x: Points, (n, D).
        latent_dim: L, the dimension of z.
        seed: The seed of the draws.
        choose: The index of the best of the proposals' estimates.
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    small = x.shape[1] <= EXACT_DATA_DIM
    draws, checked = (IMPORTANCE_DRAWS, ANNEALED_POINTS) if small else (FEWER_DRAWS, FEWER_ANNEALED_POINTS)
    each = [importance_log_prob(model, q, x, draws, generator) for q in proposals]
    chosen = choose(each)
    best = each[chosen]
    annealed = annealed_log_prob(model, x[:checked], latent_dim, generator)
    diagnostics = {
        "importance_less_annealed": -float((annealed.value - best.value[:checked]).mean()),
        "laplace_less_importance": float((each[0].value - each[-1].value).mean()),
        "khat_median": float(best.khat.median()),
        "khat_above_0.7": float((best.khat > MOST_KHAT).double().mean()),
        "ess_median": float(best.ess.median()),
    }
    if _leads(annealed, best):
        return Estimated(annealed_log_prob(model, x, latent_dim, generator), None, diagnostics)
    return Estimated(best, chosen, diagnostics)


def tightest_of(each: Sequence[Estimate]) -> int:
    """The index of the estimate with the highest mean.

    Args:
        each: Estimates of log p(x) at the same points, (n,) each. One whose mean is NaN counts as the lowest.

    Raises:
        ValueError: If there is no estimate.
    """
    return max(range(len(each)), key=lambda i: _tightness(each[i]))


def precisest_of(each: Sequence[Estimate]) -> int:
    """The index of the estimate with the least error, of those that the highest does not clearly exceed.

    The error is the mean over points. The highest exceeds another clearly if its mean is higher by more than two
    standard errors of the mean difference.

    Args:
        each: Estimates of log p(x) at the same points, (n,) each.

    Raises:
        ValueError: If there is no estimate.
    """
    highest = each[tightest_of(each)]
    level = [i for i, one in enumerate(each) if one is highest or not _leads(highest, one)]
    return min(level, key=lambda i: float(each[i].error.mean()))


def _leads(above: Estimate, below: Estimate) -> bool:
    """Whether one estimate is higher by more than two standard errors of the mean difference, or the other is NaN.

    The first may be of the first points only. One point has no spread, so the estimates' own errors take its place.
    """
    lead = above.value - below.value[: len(above.value)]
    error = standard_error(lead) if len(lead) > 1 else float(torch.hypot(above.error, below.error[:1]))
    return not float(lead.mean()) <= 2 * error  # also true for nan


def _tightness(found: Estimate) -> float:
    value = float(found.value.mean())
    return -math.inf if math.isnan(value) else value


@dataclass(frozen=True)
class Draws:
    """Draws of q(z | x), with their log-densities in nats, (count, n) each, float64, on the CPU.

    Args:
        z: Codes, (count, n, L), as the posterior gives them.
        log_likelihood: log p(x | z).
        log_prior: log p(z).
        log_q: log q(z | x).
    """

    z: Tensor
    log_likelihood: Tensor
    log_prior: Tensor
    log_q: Tensor

    @staticmethod
    def of(fitted: Fitted, x: Tensor, count: int, generator: torch.Generator) -> Draws:
        """Draw codes of each x and decode them.

        Args:
            fitted: What the method has learned.
            x: Points, (n, D).
            count: Number of draws of z for each point.
            generator: The source of the draws.
        """
        z, log_q = fitted.posterior.sample(x, count, generator)
        outputs = fitted.model.decode(z).double()
        log_likelihood = likelihood_of(fitted.model).log_prob(x.double(), outputs).cpu()
        log_prior = standard_normal_log_prob(z.double()).cpu()
        return Draws(z, log_likelihood, log_prior, log_q.double().cpu())

    @property
    def bounds(self) -> Tensor:
        """log p(x, z) - log q(z | x), (count, n), whose mean over draws is the ELBO."""
        return self.log_likelihood + self.log_prior - self.log_q


@dataclass(frozen=True)
class Encoded:
    """What draws of q(z | x) say of each point, float64, on the CPU, except `code`.

    Args:
        elbo: E_q [log p(x, z) - log q(z | x)] in nats, (n,).
        kl_to_prior: KL(q(z | x) || p(z)) in nats, (n,).
        mean: E_q [z], (n, L), by a mean over draws.
        mean_variance: The variance of that mean over draws, (n, L).
        code: The first draw, (n, L), as the posterior gives it.
    """

    elbo: Tensor
    kl_to_prior: Tensor
    mean: Tensor
    mean_variance: Tensor
    code: Tensor


def encoded(fitted: Fitted, x: Tensor, draws: int, seed: int) -> Encoded:
    """The ELBO of each point, and what else the same draws say.

    Args:
        fitted: What the method has learned.
        x: Points, (n, D).
        draws: Number of draws of z for each point, at least 2.
        seed: The seed of the draws.
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    parts = []
    for part in x.split(POINTS_AT_ONCE):
        drawn = Draws.of(fitted, part, draws, generator)
        kl = drawn.log_q.mean(0) - drawn.log_prior.mean(0)
        mean, square = (each.mean(0).double().cpu() for each in (drawn.z, drawn.z.square()))
        parts.append((drawn.bounds.mean(0), kl, mean, (square - mean.square()) / (draws - 1), drawn.z[0]))
    return Encoded(*map(torch.cat, zip(*parts, strict=True)))


def density_grid(model: DecoderModel, latent_dim: int, low: Tensor, high: Tensor, points: int) -> list[list[float]]:
    """log p(x) on a grid of the plane, for plots.

    p(x) is the mean of N(x; f(z), s2 I) over evenly spread codes of the prior. It is right where the density is
    visible; unlike the quadrature, it spends no effort on the relative error elsewhere, and below e^-690 of the peak of
    a single N(x; f(z), s2 I) it says no more than that.

    Args:
        model: The generative model, Gaussian and of D = 2.
        latent_dim: L, the dimension of z.
        low: The lower left corner of the grid, (2,).
        high: The upper right corner of the grid, (2,).
        points: Number of grid points on each axis.

    Returns:
        Rows (x1, x2, log p(x) in nats).
    """
    axes = [torch.linspace(float(a), float(b), points, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    with torch.no_grad():
        centres = model.decode(normal_codebook(DENSITY_CODES, latent_dim)).double().cpu()
    likelihood = likelihood_of(model)
    places = likelihood.embed(likelihood.outputs(torch.stack(axes, 1)))
    constant = likelihood.log_prob(*torch.zeros(2, 1, 2, dtype=torch.float64)) - math.log(DENSITY_CODES)
    # Along each axis, the density of every grid point about every centre.
    across, along = (
        ((axis[:, None] - centre).square() / (-2 * likelihood.dispersion)).exp()
        for axis, centre in zip(places.T, likelihood.embed(centres).T, strict=True)
    )
    value = (across @ along.T).clamp(min=LEAST_DENSITY).log() + constant
    return torch.cat([torch.cartesian_prod(*axes), value.reshape(-1, 1)], 1).tolist()

"""The likelihood of a generative model as a mixture over the cells of a latent grid, its ascent, and its posterior.

    log p(x) = log of the integral of p(x | z) N(z; 0, I) dz, about log sum_s w_s p(x | z_s)

The codes z_s are the centres of S cells, and w_s the masses of the cells under the prior. The codes are decoded once
for all data. Above two latent dimensions no affordable S suffices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from methods.common.latent_grid import (
    LOWEST_EXPONENT,
    GridPosterior,
    LatentGrid,
    exact_posterior,
    index_without_codes,
    posterior_on,
)
from methods.common.lbfgs import lbfgs, until_slow
from methods.contract.decoder import LEAST_NOISE, GaussianModel, GenerativeModel, PerCoordinateModel
from methods.contract.method import DecoderModel, Ledger, Posterior
from methods.likelihoods import Gaussian, Likelihood

PATIENCE = 25
ROWS_AT_ONCE = 256
CELL_WIDTH = 1.0


def maximise_likelihood(
    model: GenerativeModel,
    x: Tensor,
    grid: LatentGrid,
    ledger: Ledger,
    steps: int,
    tolerance: float,
    history: int = 60,
    name: str = "likelihood",
) -> Iterator[float]:
    """Maximise the mean log-likelihood of data over the codes of a grid by L-BFGS, in place.

    It ends after `steps`, or when 25 steps gain less than `tolerance` nats. A learned noise variance stays above a
    millionth of the variance of x, since with few data it could vanish.

    Args:
        model: The generative model.
        x: Data, (N, D).
        grid: The grid with the codes.
        ledger: Where the work is accounted for.
        steps: Most steps.
        tolerance: Least gain of 25 steps, in nats per point.
        history: Number of pairs that L-BFGS remembers.
        name: What an evaluation is called in the ledger. Grids of different sizes need different names.

    Yields:
        The mean log-likelihood after each step, in nats.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    codes, log_weights = grid.codes.to(x), grid.mass.log().to(x)
    loss: Callable[[], Tensor]
    if isinstance(model, GaussianModel):
        loss = partial(_negative_log_likelihood, model, codes, log_weights, model.units(x))
    elif isinstance(model, PerCoordinateModel):
        loss = partial(_negative_log_likelihood_per_coordinate, model, codes, log_weights, x)
    else:
        loss = partial(_negative_log_likelihood_of_family, model, codes, log_weights, x)
    losses = islice(lbfgs(parameters, loss, ledger, history, name), steps)
    for value in until_slow(losses, PATIENCE, tolerance):
        least = LEAST_NOISE * float(model.units.scale) ** 2
        if isinstance(model, GaussianModel) and model.learns_noise and model.variance() < least:
            model.set_variance(least)  # the objective clamps it there too
        yield -value


def _negative_log_likelihood(model: GaussianModel, codes: Tensor, log_weights: Tensor, standard: Tensor) -> Tensor:
    """-mean_n log sum_s w_s N(x_n; f(z_s), s2 I), computed in standard units, where rounding is least."""
    log_scale = model.units.scale.log()
    log_noise = model.log_noise - 2 * log_scale
    if model.learns_noise:
        log_noise = log_noise.clamp(min=math.log(LEAST_NOISE))
    value = mixture_log_likelihood(model.network(codes), log_noise, log_weights, standard)
    return standard.shape[1] * log_scale - value


def _negative_log_likelihood_of_family(model: GenerativeModel, codes: Tensor, log_weights: Tensor, x: Tensor) -> Tensor:
    """-mean_n log sum_s w_s p(x_n | z_s), of a likelihood without parameters."""
    value: Tensor = _FamilyLogLikelihood.apply(model.decode(codes), model.likelihood, log_weights, x)
    return -value


def _negative_log_likelihood_per_coordinate(
    model: PerCoordinateModel, codes: Tensor, log_weights: Tensor, x: Tensor
) -> Tensor:
    """-mean_n log sum_s w_s N(x_n; mu(z_s), diag v), computed in units of the noise.

    The gradient is that of the expected log p(x, s) given the present p(s | x) (Fisher's identity).
    """
    scale = model.likelihood.scale
    variances = model.variances / scale.square()  # 1, with a gradient
    standard, means = ((each - model.units.shift) / scale for each in (x, model.means(codes)))
    n, dim = standard.shape
    with torch.no_grad():
        log_sums, moments = _accumulate(Gaussian(1.0), means, log_weights.double(), standard)
        value = (log_sums - standard.square().sum() / 2) / n - dim / 2 * math.log(2 * math.pi) - scale.log().sum()
    sums, counts = moments[:, :-1], moments[:, -1:]
    squared = standard.square().sum(0) + (means * (counts * means - 2 * sums)).sum(0)
    expected = (squared / variances / n + variances.log()).sum() / 2
    return expected - expected.detach() - value


def mixture_log_likelihood(means: Tensor, log_noise: Tensor, log_weights: Tensor, x: Tensor) -> Tensor:
    """mean_n log sum_s w_s N(x_n; m_s, s2 I) in nats, float64.

    Value and gradient come from one pass over the N x S distances, which are never all in memory. Weights and data get
    no gradient.

    Args:
        means: m, (S, D).
        log_noise: log s2, a scalar.
        log_weights: log w, (S,).
        x: Data, (N, D).
    """
    value: Tensor = _MixtureLogLikelihood.apply(means, log_noise, log_weights, x)
    return value


class _MixtureLogLikelihood(torch.autograd.Function):
    """The gradient is that of expectation maximisation: sum_n p(s | x_n) (x_n - m_s) / (N s2) for each mean m_s."""

    @staticmethod
    def forward(ctx: Any, means: Tensor, log_noise: Tensor, log_weights: Tensor, x: Tensor) -> Tensor:
        (n, dim), noise = x.shape, log_noise.exp()
        log_sums, moments = _accumulate(Gaussian(noise), means, log_weights, x)
        sums, counts = moments[:, :-1], moments[:, -1:]
        total = x.double().square().sum()
        squared = total + (means.double() * (counts * means - 2 * sums).double()).sum()
        ctx.save_for_backward((sums - counts * means) / (n * noise), squared / (2 * n * noise) - dim / 2)
        return (log_sums - total / (2 * noise)) / n - dim / 2 * (math.log(2 * math.pi) + log_noise.double())

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:
        by_means, by_log_noise = ctx.saved_tensors
        return upstream.to(by_means) * by_means, (upstream * by_log_noise).to(by_means), None, None


class _FamilyLogLikelihood(torch.autograd.Function):
    """The same for any likelihood: the gradient is sum_n p(s | x_n) (x_n - E_s x) / (N phi) for outputs o_s."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, likelihood: Likelihood, log_weights: Tensor, x: Tensor) -> Tensor:
        log_sums, moments = _accumulate(likelihood, outputs, log_weights, x)
        sums, counts = moments[:, :-1], moments[:, -1:]
        ctx.save_for_backward((sums - counts * likelihood.mean(outputs)) / (len(x) * likelihood.dispersion))
        return (log_sums + likelihood.base(x.double()).sum()) / len(x) + likelihood.constant(x.shape[1])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (by_outputs,) = ctx.saved_tensors
        return upstream.to(by_outputs) * by_outputs, None, None, None


def _accumulate(likelihood: Likelihood, outputs: Tensor, log_weights: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """sum_n log sum_s w_s p(x_n | o_s) up to a term in x, and sum_n p(s | x_n) (x_n, 1), (S, D + 1)."""
    offset = log_weights - likelihood.log_partition(outputs)
    log_sums = torch.zeros((), dtype=torch.float64, device=x.device)
    moments = outputs.new_zeros(len(outputs), outputs.shape[1] + 1)
    for part in x.split(ROWS_AT_ONCE):
        affinity = likelihood.affinity(part, outputs, offset)
        top = affinity.amax(1, keepdim=True)
        affinity.sub_(top).clamp_(min=LOWEST_EXPONENT).exp_()
        total = affinity.sum(1, keepdim=True)
        log_sums += (top + total.log()).sum(dtype=torch.float64)
        moments += affinity.T @ torch.cat([part / total, 1 / total], 1)
    return log_sums, moments


class ModelPosterior(Posterior):
    """p(z | x) of a model at its weights at the first call, on a grid that resolves it.

    Args:
        model: The generative model.
    """

    def __init__(self, model: GenerativeModel):
        self.model = model

    @cached_property
    def exact(self) -> GridPosterior:
        """The posterior on the grid."""
        with torch.no_grad():
            return exact_posterior(self.model, self.model.latent_dim, CELL_WIDTH)

    def sample(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws (count, n, L) and their log-densities, (count, n)."""
        return self.exact.sample(x, count, generator)

    def log_prob(self, z: Tensor, x: Tensor) -> Tensor:
        """The density of every q(z | x) at every code: (m, L), (n, D) -> (m, n)."""
        return self.exact.log_prob(z, x)

    def from_uniform(self, x: Tensor, u: Tensor) -> Tensor:
        """Map u to codes, as GridPosterior does: (n, D), (m, L) -> (m, n, L)."""
        return self.exact.from_uniform(x, u)

    def best(self, model: DecoderModel, x: Tensor) -> GridPosterior:
        """The weights of the cells with the highest ELBO for each x, as for GridPosterior."""
        return self.exact.best(model, x)


def log_index_given_model(model: GenerativeModel, train: Tensor, grid: LatentGrid) -> Callable[[Tensor], Tensor]:
    """The index posterior that a model at its weights at each call implies, on a given grid.

    Args:
        model: The generative model.
        train: Training points, (N, D).
        grid: The grid.

    Returns:
        log q(i | x), (n, D) -> (n, N), in nats.
    """

    def log_index(x: Tensor) -> Tensor:
        with torch.no_grad():
            posterior = posterior_on(model, grid)
        return index_without_codes(posterior, train)(x)

    return log_index

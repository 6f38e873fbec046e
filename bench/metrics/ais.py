"""log p(x) of a latent-variable model by annealed importance sampling, which needs no approximate posterior.

Chains move from the prior to the posterior along p(z) p(x | z)^beta (Neal 2001), by Hamiltonian Monte Carlo (Wu et al.
2017). A pilot run finds a metric and a step size for each point and temperature. They are then fixed, since weights are
unbiased only if a transition ignores its chain's past, and since the upper bound runs the same transitions backwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.metrics.importance import Estimate, collect, device_of, log_likelihood, pareto_shape, summarise
from methods.contract.method import DecoderModel, likelihood_of

CHAINS = 8
TEMPERATURES = 150
LEAPFROGS = 2
PILOT_CHAINS = 2
ACCEPTANCE = 0.65
GAIN = 0.3
DIFFERENCE = 1e-2
PRIOR_DRAWS = 1000
ROWS_AT_ONCE = 8192


def annealed_log_prob(
    model: DecoderModel,
    x: Tensor,
    latent_dim: int,
    generator: torch.Generator,
    chains: int = CHAINS,
    temperatures: int = TEMPERATURES,
    leapfrogs: int = LEAPFROGS,
) -> Estimate:
    """log p(x) by annealed importance sampling: the log of the mean weight of several chains.

    The mean weight is an unbiased estimate of p(x); its log is too low by about error^2 / 2. khat is NaN, since there
    are too few chains. Chains run on the model's device; the result is on the CPU.

    Args:
        model: The generative model.
        x: Points, (n, D).
        latent_dim: L, the dimension of z.
        generator: The source of all draws, on any device.
        chains: Chains per point.
        temperatures: Temperatures between prior and posterior.
        leapfrogs: Leapfrog steps per transition.

    Raises:
        ValueError: If there are fewer than 2 chains, 2 temperatures or 1 leapfrog step.
    """
    _check(chains, temperatures, leapfrogs)
    with torch.no_grad():
        betas = _schedule(model, latent_dim, temperatures, generator)
        parts = []
        for group in x.to(device_of(model)).split(max(1, ROWS_AT_ONCE // chains)):
            log_weight = _Path(model, group, latent_dim, betas, leapfrogs, generator).from_prior(chains)
            parts.append(summarise(log_weight, torch.full_like(log_weight[0], math.nan)))
        return collect(parts)


def bidirectional(
    model: DecoderModel,
    latent_dim: int,
    points: int,
    generator: torch.Generator,
    chains: int = CHAINS,
    temperatures: int = TEMPERATURES,
    leapfrogs: int = LEAPFROGS,
) -> tuple[Estimate, Estimate]:
    """Lower and upper bounds, in expectation, on log p(x) of draws of the model itself.

    The code that generated x is a draw of its posterior. Chains that run backwards from it have a mean weight that is
    an unbiased estimate of 1 / p(x) (Grosse et al. 2015; Wu et al. 2017). For data like the model's own, the gap of the
    bounds limits the error of `annealed_log_prob` with the same settings.

    The few weights of a point have no tail to fit. So khat is that of all weights in one direction, each relative to
    the bound of its point in the other direction. Backward chains of a point share their start, so that the error of
    its upper bound is too small (by half, on surfaces); errors of means over points do not use it. Where a share of
    forward chains ends in modes without mass, the upper bound is too high by about that share (0.17 nats on s_curve).

    Args:
        model: The generative model.
        latent_dim: L, the dimension of z.
        points: Number of draws x.
        generator: The source of all draws, on any device.
        chains: Chains per point.
        temperatures: Temperatures between prior and posterior.
        leapfrogs: Leapfrog steps per transition.

    Returns:
        The lower and the upper bound of each point, on the CPU.

    Raises:
        ValueError: If there are fewer than 2 chains, 2 temperatures or 1 leapfrog step.
    """
    _check(chains, temperatures, leapfrogs)
    with torch.no_grad():
        betas = _schedule(model, latent_dim, temperatures, generator)
        codes = _normal((points, latent_dim), generator, device_of(model))
        x = likelihood_of(model).sample(model.decode(codes).double(), generator)
        forward, backward = [], []
        for group, z in zip(*(each.split(max(1, ROWS_AT_ONCE // chains)) for each in (x, codes)), strict=True):
            path = _Path(model, group, latent_dim, betas, leapfrogs, generator)
            forward.append(path.from_prior(chains))
            backward.append(path.from_posterior(z.expand(chains, -1, -1)))
        up, down = torch.cat(forward, 1), torch.cat(backward, 1)
        evidence, reciprocal = _log_mean(up), _log_mean(down)  # log p(x), -log p(x)
        lower, upper = (
            replace(collect([summarise(each, _pooled_shape(each + other).expand(points))]), value=bound.cpu())
            for each, other, bound in ((up, reciprocal, evidence), (down, evidence, -reciprocal))
        )
        return lower, upper


def _check(chains: int, temperatures: int, leapfrogs: int) -> None:
    if chains < 2 or temperatures < 2 or leapfrogs < 1:
        got = f"got {chains}, {temperatures} and {leapfrogs}"
        raise ValueError(f"annealing needs at least 2 chains, 2 temperatures and 1 leapfrog step, {got}")


def _log_mean(log_weight: Tensor) -> Tensor:
    return torch.logsumexp(log_weight, 0) - math.log(len(log_weight))


def _pooled_shape(log_weight: Tensor) -> Tensor:
    """The Pareto shape of the weights of all points, (chains, n), as one sample."""
    return pareto_shape(log_weight.reshape(-1, 1))


def _normal(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64).to(device)


def _schedule(model: DecoderModel, latent_dim: int, temperatures: int, generator: torch.Generator) -> Tensor:
    """Inverse temperatures beta from 0 to 1, (temperatures + 1,).

    1 + r beta grows geometrically, where r is the signal-to-noise ratio. So the log precision of a Gaussian posterior
    changes evenly. A sigmoid schedule has too few steps where the posterior becomes narrow.
    """
    likelihood = likelihood_of(model)
    centres = likelihood.embed(model.decode(_normal((PRIOR_DRAWS, latent_dim), generator, device_of(model))).double())
    ratio = max(float(centres.var(0).sum()) / likelihood.dispersion, 1e-6)
    t = torch.linspace(0, 1, temperatures + 1, dtype=torch.float64, device=centres.device)
    return torch.expm1(t * math.log1p(ratio)) / ratio


@dataclass(frozen=True)
class _State:
    """Chains at codes z (chains, n, L), with log p(x | z), (chains, n), and its gradient in z, (chains, n, L)."""

    z: Tensor
    log_likelihood: Tensor
    slope: Tensor

    def log_density(self, beta: Tensor) -> Tensor:
        return beta * self.log_likelihood - self.z.square().sum(-1) / 2

    def gradient(self, beta: Tensor) -> Tensor:
        return beta * self.slope - self.z

    def where(self, accepted: Tensor, other: _State) -> _State:
        """This state where accepted, (chains, n); the other state elsewhere."""
        z, slope = (
            torch.where(accepted[..., None], new, old) for new, old in ((self.z, other.z), (self.slope, other.slope))
        )
        return _State(z, torch.where(accepted, self.log_likelihood, other.log_likelihood), slope)


class _Path:
    """The distributions between prior and posterior of points x (n, D), and the transitions that leave each invariant.

    Attributes:
        scales: The step size times the inverse root of the metric, for each distribution except the first and last and
            for each x, (temperatures - 1, n, L, L).
    """

    def __init__(
        self,
        model: DecoderModel,
        x: Tensor,
        latent_dim: int,
        betas: Tensor,
        leapfrogs: int,
        generator: torch.Generator,
    ):
        self.model, self.x, self.latent_dim = model, x, latent_dim
        self.betas, self.leapfrogs, self.generator = betas, leapfrogs, generator
        self.scales = self._pilot()

    def from_prior(self, chains: int) -> Tensor:
        """Log weights of chains that start at draws of the prior, (chains, n); the expected weight is p(x)."""
        return self._anneal(self._prior(chains), self.betas, self.scales)

    def from_posterior(self, z: Tensor) -> Tensor:
        """Log weights of chains that start at draws z (chains, n, L) of p(z | x); the expected weight is 1 / p(x)."""
        return self._anneal(z, self.betas.flip(0), self.scales.flip(0))

    def _anneal(self, z: Tensor, betas: Tensor, scales: Tensor) -> Tensor:
        """Weight by p(x | z)^(change of beta), then move (Neal 2001): log weights, (chains, n)."""
        state = self._at(z)
        log_weight = torch.zeros_like(state.log_likelihood)
        for before, beta, scale in zip(betas[:-2], betas[1:-1], scales, strict=True):
            log_weight += (beta - before) * state.log_likelihood
            state, _ = self._move(state, beta, scale)
        return log_weight + (betas[-1] - betas[-2]) * state.log_likelihood

    def _pilot(self) -> Tensor:
        """Scales at which about 65% of moves are accepted and no trajectory is longer than a quarter turn."""
        state = self._at(self._prior(PILOT_CHAINS))
        information = self._information(state.z)
        longest = math.log(math.pi / 2 / self.leapfrogs)
        log_step = torch.full_like(state.log_likelihood[0], longest)
        scales = []
        for beta in self.betas[1:-1]:
            information = (information + self._information(state.z)) / 2
            scales.append(log_step.exp()[:, None, None] * _inverse_root(beta * information))
            state, acceptance = self._move(state, beta, scales[-1])
            log_step = (log_step + GAIN * (acceptance.mean(0) - ACCEPTANCE)).clamp(max=longest)
        return torch.stack(scales)

    def _information(self, z: Tensor) -> Tensor:
        """The Fisher information, J^T J / s2 with J the decoder's Jacobian by differences: (chains, n, L) -> (n, L, L).

        It is the mean over chains. For other families than the Gaussian, J is that of the embedded outputs.
        """
        likelihood = likelihood_of(self.model)
        shifts = DIFFERENCE * torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        places = z[..., None, :] + torch.cat([torch.zeros_like(shifts[:1]), shifts])
        shifted = likelihood.embed(self.model.decode(places).double())
        jacobian = ((shifted[..., 1:, :] - shifted[..., :1, :]) / DIFFERENCE).nan_to_num(0, 0, 0)
        return (jacobian @ jacobian.mT).mean(0) / likelihood.dispersion

    def _move(self, state: _State, beta: Tensor, scale: Tensor) -> tuple[_State, Tensor]:
        """A step of Hamiltonian Monte Carlo (Neal 2011), and its acceptance probabilities, (chains, n)."""
        start = momentum = _normal(state.z.shape, self.generator, state.z.device)
        moved = state
        for _ in range(self.leapfrogs):
            momentum = momentum + _apply(scale.mT, moved.gradient(beta)) / 2
            moved = self._at(moved.z + _apply(scale, momentum))
            momentum = momentum + _apply(scale.mT, moved.gradient(beta)) / 2
        kinetic = (start.square() - momentum.square()).sum(-1) / 2
        log_ratio = moved.log_density(beta) - state.log_density(beta) + kinetic
        acceptance = log_ratio.clamp(max=0).exp().nan_to_num(0)  # a trajectory that diverged is rejected
        device = self.generator.device
        uniform = torch.rand(acceptance.shape, generator=self.generator, device=device, dtype=torch.float64)
        return moved.where(uniform.to(acceptance.device) < acceptance, state), acceptance

    def _prior(self, chains: int) -> Tensor:
        return _normal((chains, len(self.x), self.latent_dim), self.generator, self.x.device)

    def _at(self, z: Tensor) -> _State:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = log_likelihood(self.model, self.x, z)
            (slope,) = torch.autograd.grad(value.sum(), z)
        return _State(z.detach(), value.detach(), slope)


def _inverse_root(matrix: Tensor) -> Tensor:
    """R with R R^T = (I + M)^-1 for positive semi-definite M (..., L, L); any R where this overflows."""
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    root = torch.linalg.cholesky_ex(identity + matrix).L
    return torch.linalg.solve_triangular(root.mT, identity, upper=True)


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrices (n, L, L) times the vectors of several chains (chains, n, L)."""
    return torch.einsum("nij,cnj->cni", matrix, vector)

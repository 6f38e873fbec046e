"""Exact log-likelihood of a latent-variable model by adaptive quadrature over its latent space.

    log p(x) = log of the integral of N(x; f(z), s2 I) N(z; 0, I) dz,   z in R^1 or R^2.

Boxes of latent space are bisected until, on each, a Kronrod rule and its nested Gauss rule agree (QUADPACK,
Piessens et al. 1983), one axis at a time. Agreement means nothing where both rules step over a feature of f, so a
box whose decoded nodes lie further apart than the noise is charged with all that it could contribute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.special import log_ndtr, ndtri

# Nodes from the outermost to 0, with their Kronrod and Gauss weights (0 at nodes that only Kronrod has).
KRONROD = {
    15: np.array(
        [
            (0.991455371120813, 0.022935322010529, 0.0),
            (0.949107912342759, 0.063092092629979, 0.129484966168870),
            (0.864864423359769, 0.104790010322250, 0.0),
            (0.741531185599394, 0.140653259715525, 0.279705391489277),
            (0.586087235467691, 0.169004726639267, 0.0),
            (0.405845151377397, 0.190350578064785, 0.381830050505119),
            (0.207784955007898, 0.204432940075298, 0.0),
            (0.0, 0.209482141084728, 0.417959183673469),
        ]
    ),
    7: np.array(
        [
            (0.960491268708020283, 0.104656226026467265, 0.0),
            (0.774596669241483377, 0.268488089868333441, 5 / 9),
            (0.434243749346802558, 0.401397414775962223, 0.0),
            (0.0, 0.450916538658474142, 8 / 9),
        ]
    ),
}
RULE = {1: 15, 2: 7}
POINTS_AT_ONCE = {1: 4096, 2: 128}
PAIRS_AT_ONCE = 1_000_000
PROBES = 256
MAX_NODES = 400_000
RESOLVED_STEP = 2.0
RESCALE_ABOVE = 300.0


@dataclass(frozen=True)
class LogProb:
    """log p(x) in nats, (n,), and the absolute numerical error of each value, (n,)."""

    value: Tensor
    error: Tensor


def log_marginal(
    decode: Callable[[Tensor], Tensor], noise: float, x: Tensor, latent_dim: int, tolerance: float = 1e-3
) -> LogProb:
    """log p(x) for x (n, D) under z ~ N(0, I), x | z ~ N(decode(z), noise I), to `tolerance` nats on the mean.

    The error of a value sums, over boxes and axes, the disagreement of the two rules and the possible mass of
    what the nodes do not resolve, relative to p(x), and a bound on the mass outside the domain. Refinement stops
    when its mean over x is below the tolerance, or after 400,000 nodes per group of points: a larger mean error is
    then reported as it is.

    Raises ValueError for a latent dimension other than 1 or 2, and for points that are not finite.
    """
    if latent_dim not in RULE:
        raise ValueError(f"quadrature takes latent dimension 1 or 2, got {latent_dim}")
    if not torch.isfinite(x).all():
        raise ValueError("quadrature needs finite points x")
    with torch.no_grad():
        probes = decode(normal_codebook(PROBES, latent_dim)).double()
        points = torch.cat([x.double(), probes])
        weight = torch.cat([torch.full((len(x),), 1 / len(x)), torch.full((PROBES,), 1 / PROBES)]).double()
        value, error = torch.empty_like(weight), torch.empty_like(weight)
        for group in _neighbourhoods(points, POINTS_AT_ONCE[latent_dim]):
            integral = _Integral(decode, noise, points[group], weight[group], latent_dim)
            value[group], error[group] = integral.log_value(tolerance * float(weight[group].sum()) / 2)
        return LogProb(value[: len(x)], error[: len(x)])


def _neighbourhoods(points: Tensor, size: int) -> Iterator[Tensor]:
    """Indices of the points in groups of at most `size` near one another, by halving along the widest axis."""
    pending = [torch.arange(len(points))]
    while pending:
        index = pending.pop()
        if len(index) <= size:
            yield index
            continue
        spread = points[index].amax(0) - points[index].amin(0)
        order = points[index, spread.argmax()].argsort()
        pending += index[order].chunk(2)


def normal_codebook(n: int, latent_dim: int) -> Tensor:
    """n well-spread codes of the prior, (n, L): quantiles for L = 1, a Sobol set above."""
    if latent_dim == 1:
        return ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]
    engine = torch.quasirandom.SobolEngine(latent_dim, scramble=True, seed=0)
    return ndtri(engine.draw(n, dtype=torch.float64).clamp(1e-12, 1 - 1e-12))


def _rule(latent_dim: int) -> tuple[Tensor, Tensor]:
    """Nodes of the tensor Kronrod rule on [-1, 1]^L, (k^L, L), and weights (1 + L, k^L).

    Row 0 of the weights is Kronrod on every axis; row 1 + a has Gauss on axis a.
    """
    half_nodes, half_kronrod, half_gauss = KRONROD[RULE[latent_dim]].T
    nodes = np.concatenate([-half_nodes[:-1], half_nodes[::-1]])
    kronrod, gauss = (np.concatenate([w[:-1], w[::-1]]) for w in (half_kronrod, half_gauss))
    grid = np.stack([a.ravel() for a in np.meshgrid(*[nodes] * latent_dim, indexing="ij")], -1)
    rows = []
    for special in range(-1, latent_dim):
        per_axis = [gauss if axis == special else kronrod for axis in range(latent_dim)]
        rows.append(np.prod([a.ravel() for a in np.meshgrid(*per_axis, indexing="ij")], axis=0))
    return torch.tensor(grid), torch.tensor(np.stack(rows))


class _Integral:
    """p(x) of one model at a few points, of which each has a weight in the mean error.

    Some points are probes, that is decoded codes: they make the rules resolve every part of latent space that
    carries prior mass, however few the points and wherever they lie.
    """

    def __init__(
        self,
        decode: Callable[[Tensor], Tensor],
        noise: float,
        points: Tensor,
        weight: Tensor,
        latent_dim: int,
    ):
        self.decode, self.noise, self.points, self.weight = decode, noise, points, weight
        self.latent_dim = latent_dim
        self.nodes, self.rule = _rule(latent_dim)
        self.square = (points**2).sum(1)
        self.log_peak = -points.shape[1] / 2 * math.log(2 * math.pi * noise)
        self.scale = torch.full_like(self.square, -math.inf)

    def log_value(self, tolerance: float) -> tuple[Tensor, Tensor]:
        """log p(x) and its error, (n,) each, over a domain wide enough for the weighted error asked for."""
        radius = 8.0
        while True:
            value, error = self._integrate(radius, tolerance)
            outside = (self._log_bound_outside(radius) - value).exp().clamp(max=1.0)
            if self.weight @ outside <= tolerance:
                return value, error + outside
            radius *= 1.5

    def _log_bound_outside(self, radius: float) -> float:
        one_tail = float(log_ndtr(torch.tensor(-radius, dtype=torch.float64)))
        return self.log_peak + math.log(2 * self.latent_dim) + one_tail

    def _integrate(self, radius: float, tolerance: float) -> tuple[Tensor, Tensor]:
        """log p(x) and its error over the cube of half-width `radius`, breadth first."""
        self.scale.fill_(-math.inf)
        accepted, error = torch.zeros_like(self.square), torch.zeros_like(self.square)
        centre, half = self._first_boxes(radius)
        evaluated = 0
        while len(half):
            value, doubt, shrunk = self._evaluate(centre, half)
            evaluated += len(half) * len(self.nodes)
            accepted, error = accepted * shrunk, error * shrunk
            per_nat = self.weight / (accepted + value.sum(0))
            cost = doubt @ per_nat
            keep = _affordable(cost.sum(1), tolerance - float(per_nat @ error))
            if evaluated > MAX_NODES:
                keep[:] = True
            accepted += value[keep].sum(0)
            error += doubt[keep].sum((0, 1))
            centre, half = _bisect(centre[~keep], half[~keep], cost[~keep].argmax(1))
        return accepted.log() + self.scale, error / accepted

    def _first_boxes(self, radius: float) -> tuple[Tensor, Tensor]:
        """Boxes that tile the cube, at most 1/2 wide at the origin and wider outwards."""
        centre = torch.zeros(1, self.latent_dim, dtype=torch.float64)
        half = torch.full_like(centre, radius)
        while True:
            nearest = (centre.abs() - half).clamp(min=0).norm(dim=1, keepdim=True)
            large = half > 0.25 * nearest.clamp(min=1.0)
            if not large.any():
                return centre, half
            split = large.any(1)
            halves = _bisect(centre[split], half[split], half[split].argmax(1))
            centre, half = torch.cat([centre[~split], halves[0]]), torch.cat([half[~split], halves[1]])

    def _evaluate(self, centre: Tensor, half: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the rules say of boxes (b, L), and the factor by which values found earlier shrink, (n,).

        That is their shares of p(x), (b, n), and the error of those along each axis, (b, L, n), times exp(-scale).
        """
        before = self.scale
        value = torch.empty(len(half), len(self.points), dtype=torch.float64)
        doubt = torch.empty(len(half), self.latent_dim, len(self.points), dtype=torch.float64)
        count = max(1, PAIRS_AT_ONCE // (len(self.nodes) * len(self.points)))
        for start in range(0, len(half), count):
            part = slice(start, start + count)
            raised_from = self.scale
            value[part], doubt[part] = self._estimates(centre[part], half[part])
            if raised_from is not self.scale:
                shrink = (raised_from - self.scale).exp()
                value[:start] *= shrink
                doubt[:start] *= shrink
        return value, doubt, (before - self.scale).nan_to_num(nan=0.0).exp()

    def _estimates(self, centre: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
        z = centre[:, None] + half[:, None] * self.nodes
        mean = self.decode(z.flatten(0, 1)).double()
        log_prior = -(z**2).sum(-1) / 2 - self.latent_dim / 2 * math.log(2 * math.pi)
        offset = log_prior.flatten() + self.log_peak - (mean**2).sum(1) / (2 * self.noise)
        exponent = torch.addmm(offset[:, None], mean, self.points.T, alpha=1 / self.noise)
        exponent -= self.square / (2 * self.noise)
        peak = exponent.amax(0)
        raised = peak > self.scale + RESCALE_ABOVE
        if raised.any():
            self.scale = torch.where(raised, peak, self.scale)
        integrand = exponent.sub_(self.scale).exp_().unflatten(0, (len(half), -1))
        volume = half.prod(1)[:, None, None]
        estimates = volume * (self.rule @ integrand)
        value = estimates[:, 0]
        doubt = (estimates[:, 1:] - value[:, None]).abs()
        self._doubt_unresolved(doubt, mean.unflatten(0, (len(half), -1)), _log_mass(centre, half))
        return value, doubt

    def _doubt_unresolved(self, doubt: Tensor, mean: Tensor, log_mass: Tensor) -> None:
        """Add to `doubt` what a box could contribute along axes where its decoded nodes (b, k^L, D) lie far apart."""
        per_axis = mean.unflatten(1, (RULE[self.latent_dim],) * self.latent_dim)
        steps = [per_axis.diff(dim=1 + a).norm(dim=-1).flatten(1).amax(1) for a in range(self.latent_dim)]
        for axis, step in enumerate(steps):
            box = (step > RESOLVED_STEP * math.sqrt(self.noise)).nonzero()[:, 0]
            if len(box):
                nearest = torch.cdist(mean[box], self.points).amin(1)
                distance = (nearest - step[box, None]).clamp(min=0)
                log_density = self.log_peak - distance**2 / (2 * self.noise) - self.scale
                doubt[box, axis] += (log_mass[box, None] + log_density).clamp(max=600).exp()


def _log_mass(centre: Tensor, half: Tensor) -> Tensor:
    """log of the mass of N(0, I) in boxes (b, L), also where the mass itself underflows: (b,)."""
    near, far = log_ndtr(half - centre.abs()), log_ndtr(-half - centre.abs())
    return (near + torch.log1p(-(far - near).exp())).sum(1)


def _affordable(cost: Tensor, spare: float) -> Tensor:
    """Which boxes to accept: all if their errors sum to at most `spare`, else the best ones worth half of it."""
    order = cost.argsort()
    running = cost[order].cumsum(0)
    accept = torch.zeros(len(cost), dtype=torch.bool)
    accept[order] = running <= (spare if running[-1] <= spare else spare / 2)
    return accept


def _bisect(centre: Tensor, half: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    """Each box (b, L) as two halves along its axis (b,)."""
    chosen = torch.nn.functional.one_hot(axis, centre.shape[1]).double()
    shift, half = chosen * half / 2, half * (1 - chosen / 2)
    return torch.cat([centre - shift, centre + shift]), half.repeat(2, 1)

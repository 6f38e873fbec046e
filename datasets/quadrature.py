"""Exact log-likelihood of a latent-variable model by adaptive quadrature over its latent space.

    log p(x) = log of the integral of p(x | f(z)) N(z; 0, I) dz,   z in R^1 or R^2.

Boxes of latent space are bisected, one axis at a time, until a Kronrod rule and its nested Gauss rule agree on each box
(QUADPACK, Piessens et al. 1983). Agreement means nothing where both rules step over a feature of f. So the error of a
box whose decoded nodes are further apart than the noise includes all that the box could contribute. Each box is decoded
once for all points, but it is integrated and bisected only for those groups of neighbouring points that need it. A box
too far from a group to matter is left out, and the most that it could contribute is part of the error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.special import log_ndtr, ndtri

from methods.likelihoods import Gaussian, Likelihood

# Nodes from the outermost to 0, with Kronrod and Gauss weights (0 at nodes that only the Kronrod rule has).
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
POINTS_AT_ONCE = 2048
GROUP_SIZE = 32
DECODED_AT_ONCE = 4096  # hidden layers of so many codes stay in the processor's cache
INTEGRANDS_AT_ONCE = 100_000
MAX_NODES = 400_000
PROBES = 256
FIRST_WIDTH = {1: 1 / 32, 2: 1 / 4}
RESOLVED_STEP = 2.0
PREDICTED_GAP = 0.01
MERGED_STEP = 1.0
NEGLIGIBLE = 16.0


@dataclass(frozen=True)
class LogProb:
    """log p(x) with its numerical error.

    Args:
        value: log p(x) in nats, (n,).
        error: The absolute numerical error of each value in nats, (n,).
    """

    value: Tensor
    error: Tensor


def log_marginal(
    decode: Callable[[Tensor], Tensor],
    likelihood: Likelihood | float,
    x: Tensor,
    latent_dim: int,
    tolerance: float = 1e-3,
) -> LogProb:
    """log p(x) under z ~ N(0, I), x | z ~ p(x | decode(z)), by quadrature.

    The error of a value is relative to p(x). It is a sum over boxes and axes of the disagreement of the two rules and
    of the mass that the nodes may not resolve, and of a bound on the mass outside the domain. Refinement stops when the
    mean error over x is below the tolerance, or after 400,000 nodes per point on average. In the second case the
    larger error is reported.

    Args:
        decode: The outputs that p(x | z) depends on, (m, L) -> (m, D).
        likelihood: p(x | z); a number is the variance s2 of a Gaussian, in squared data units.
        x: Points, (n, D).
        latent_dim: L, 1 or 2.
        tolerance: The largest mean error over x, in nats.

    Raises:
        ValueError: If the latent dimension is neither 1 nor 2, or a point is not finite.
    """
    if latent_dim not in RULE:
        raise ValueError(f"quadrature takes latent dimension 1 or 2, got {latent_dim}")
    if not torch.isfinite(x).all():
        raise ValueError("quadrature needs finite points x")
    family = likelihood if isinstance(likelihood, Likelihood) else Gaussian(likelihood)
    with torch.no_grad():
        probes = decode(normal_codebook(PROBES, latent_dim)).double()
        parts = [_log_marginal(decode, family, part, probes, latent_dim, tolerance) for part in x.split(POINTS_AT_ONCE)]
    return LogProb(torch.cat([part.value for part in parts]), torch.cat([part.error for part in parts]))


def _log_marginal(
    decode: Callable[[Tensor], Tensor],
    likelihood: Likelihood,
    x: Tensor,
    probes: Tensor,
    latent_dim: int,
    tolerance: float,
) -> LogProb:
    """log p(x) with a mean error below the tolerance at x and at the probes together.

    The probes are decoded codes, and their means are points too. With them, the rules resolve every part of latent
    space that has prior mass, even if x are few or far away.
    """
    x = x.double()
    points = torch.cat([x, likelihood.mean(probes)])
    weight = torch.cat([torch.full((len(part),), 1 / len(part), dtype=torch.float64) for part in (x, probes)])
    of_probes = likelihood.affinity(points, probes, -likelihood.log_partition(probes))
    guess = (of_probes.amax(1) - likelihood.conjugate(points)).clamp(max=0) - math.log(PROBES)
    bounded_by_distance = likelihood.most(probes[:0], probes[:0]) is None
    embedded = likelihood.outputs(points) if bounded_by_distance else probes[of_probes.argmax(1)]
    places = likelihood.embed(embedded)
    index = _neighbourhoods(places, GROUP_SIZE)
    kind = _Integral if bounded_by_distance else _BoundedIntegral
    integral = kind(decode, likelihood, points[index], weight[index], latent_dim)
    value, error = torch.empty_like(weight), torch.empty_like(weight)
    value[index], error[index] = integral.log_value(guess[index], tolerance)
    log_peak = likelihood.conjugate(x) + likelihood.base(x) + likelihood.constant(x.shape[1])
    return LogProb(value[: len(x)] + log_peak, error[: len(x)])


def _neighbourhoods(points: Tensor, size: int) -> Tensor:
    """Indices of the points in g groups of m <= size neighbours, by halving along the widest axis: (g, m).

    The last point fills incomplete groups.
    """
    groups = 2 ** math.ceil(math.log2(max(1.0, len(points) / size)))
    index = torch.arange(groups * math.ceil(len(points) / groups)).clamp(max=len(points) - 1)[None]
    while len(index) < groups:
        near = points[index]
        widest = (near.amax(1) - near.amin(1)).argmax(1)
        order = near[torch.arange(len(near)), :, widest].argsort(1)
        index = index.gather(1, order).reshape(2 * len(index), -1)
    return index


def normal_codebook(n: int, latent_dim: int) -> Tensor:
    """n evenly spread codes of the prior, (n, L), float64: quantiles for L = 1, a Sobol set for larger L."""
    if latent_dim == 1:
        return ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)[:, None]
    engine = torch.quasirandom.SobolEngine(latent_dim, scramble=True, seed=0)
    return ndtri(engine.draw(n, dtype=torch.float64).clamp(1e-12, 1 - 1e-12))


@cache
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


@dataclass(frozen=True)
class _Boxes:
    """b decoded boxes, in the form that the integrand needs.

    Args:
        rows: (b, k^L, D + 2); the product with the columns of a group is the log of the integrand.
        volume: (b,), in units of a box with sides of 2.
        step: The largest distance of neighbouring decoded nodes along each axis, in the Fisher metric, (b, L).
        middle: The decoded centre, embedded, (b, D).
        reach: The largest distance from there within the box, as far as the nodes tell, (b,).
        log_prior: The log of the smallest prior density at a node, (b,).
        log_mass: The log of the box's prior mass, (b,).
        most: The product with the columns of a group bounds the log of p(x | z) over its largest value, (b, D + 2), for
            a family that is not bounded by distances; else empty.
    """

    rows: Tensor
    volume: Tensor
    step: Tensor
    middle: Tensor
    reach: Tensor
    log_prior: Tensor
    log_mass: Tensor
    most: Tensor


class _Integral:
    """p(x) over the largest p(x | o), at most 1, at groups of points (g, m, D), with weights in the mean error."""

    def __init__(
        self,
        decode: Callable[[Tensor], Tensor],
        likelihood: Likelihood,
        points: Tensor,
        weight: Tensor,
        latent_dim: int,
    ):
        self.decode, self.likelihood, self.weight, self.latent_dim = decode, likelihood, weight, latent_dim
        self.nodes, self.rule = _rule(latent_dim)
        places = likelihood.embed(likelihood.outputs(points))
        self.middle = places.mean(1)
        self.reach = (places - self.middle[:, None]).norm(dim=2).amax(1)
        peak = -likelihood.conjugate(points)[..., None]
        self.columns = torch.cat([points / likelihood.dispersion, torch.ones_like(peak), peak], 2).mT.contiguous()

    def log_value(self, guess: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        """The log of the integral and its error, (g, m) each, over a domain that is wide enough.

        A guess of the log, (g, m), saves work: narrower domains, and boxes that do not matter.
        """
        value, radius = guess, 8.0
        while True:
            while (self.weight * self._outside(radius, value)).sum() > tolerance / 10:
                radius *= 1.5
            value, error = self._integrate(radius, 0.9 * tolerance, value)
            outside = self._outside(radius, value)
            if not (self.weight * outside).sum() > tolerance / 10:  # also true for nan
                return value, error + outside

    def _outside(self, radius: float, value: Tensor) -> Tensor:
        """A bound on the part of the integral outside the cube of half-width `radius`: (g, m)."""
        one_tail = float(log_ndtr(torch.tensor(-radius, dtype=torch.float64)))
        return (math.log(2 * self.latent_dim) + one_tail - value).exp().clamp(max=1.0)

    def _integrate(self, radius: float, tolerance: float, guess: Tensor) -> tuple[Tensor, Tensor]:
        """The log of the integral and its error over the cube of half-width `radius`, breadth first."""
        value, error = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        scale = torch.full_like(value, -math.inf)
        centre, half = _first_boxes(self.latent_dim, radius)
        if self.latent_dim == 1:
            centre, half = self._merged(centre, half, radius)
        box, group = torch.cartesian_prod(torch.arange(len(half)), torch.arange(len(value))).T
        evaluated = 0
        while len(box):
            boxes = self._decoded(centre, half)
            near, log_most = self._near(boxes, box, group, guess)
            far, left_out = group[~near], log_most[~near]
            box, group, log_most = box[near], group[near], log_most[near]
            share, doubt, raised = self._evaluate(boxes, box, group, scale, log_most)
            evaluated += len(box) * len(self.nodes)
            value, error, scale = value * (scale - raised).exp(), error * (scale - raised).exp(), raised
            error.index_add_(0, far, (left_out - scale[far]).exp())
            total = value.index_add(0, group, share)
            guess, per_nat = total.log() + scale, self.weight / total
            cost = (doubt * per_nat[group, None]).sum(2)
            # If p(x) turns out smaller than estimated, relative errors grow and can exceed the tolerance.
            spare = max(tolerance - float((per_nat * error).sum()), tolerance / 100)
            keep = _affordable(cost.sum(1), spare)
            if evaluated + 2 * int((~keep).sum()) * len(self.nodes) > MAX_NODES * len(value):
                keep[:] = True
            value.index_add_(0, group[keep], share[keep])
            error.index_add_(0, group[keep], doubt[keep].sum(1))
            centre, half, box = _refine(centre, half, box[~keep], cost[~keep])
            group = group[~keep].repeat(2)
        return value.log() + scale, error / value

    def _merged(self, centre: Tensor, half: Tensor, radius: float) -> tuple[Tensor, Tensor]:
        """The boxes (b, 1) that halve a box, replaced by it where its nodes tell what theirs are, again and again.

        They do where the polynomial through its decoded nodes is within a hundredth of a standard deviation of the
        noise at the nodes of its halves, and its nodes are no further apart than the noise.
        """
        noise, interpolate = self.likelihood.unit, _to_halves()
        order = centre[:, 0].argsort()
        centre, half = centre[order], half[order]
        mean = self.likelihood.embed(self._outputs(centre, half))
        while True:
            even = ((centre[:-1] + radius) / (2 * half[:-1])).floor() % 2 == 0
            left = (even & (half[:-1] == half[1:]))[:, 0].nonzero()[:, 0]
            whole = self.likelihood.embed(self._outputs(centre[left] + half[left], 2 * half[left]))
            gap = (interpolate @ whole - torch.cat([mean[left], mean[left + 1]], 1)).norm(dim=2).amax(1)
            good = (gap <= PREDICTED_GAP * noise) & (self._steps(whole)[:, 0] <= MERGED_STEP * noise)
            if not good.any():
                return centre, half
            left, whole = left[good], whole[good]
            centre[left] += half[left]
            half[left] *= 2
            mean[left] = whole
            kept = torch.ones(len(half), dtype=torch.bool).index_fill_(0, left + 1, False)
            centre, half, mean = centre[kept], half[kept], mean[kept]

    def _outputs(self, centre: Tensor, half: Tensor) -> Tensor:
        """The decoded nodes of boxes, (b, k^L, D)."""
        z = centre[:, None] + half[:, None] * self.nodes
        parts = [self.decode(part).double() for part in z.flatten(0, 1).split(DECODED_AT_ONCE)]
        return torch.cat(parts).unflatten(0, z.shape[:2])

    def _decoded(self, centre: Tensor, half: Tensor) -> _Boxes:
        z = centre[:, None] + half[:, None] * self.nodes
        outputs = self._outputs(centre, half)
        log_prior = -(z**2).sum(2) / 2 - self.latent_dim / 2 * math.log(2 * math.pi)
        weight = (log_prior - self.likelihood.log_partition(outputs))[..., None]
        rows = torch.cat([outputs, weight, torch.ones_like(weight)], 2)
        mean = self.likelihood.embed(outputs)
        step, middle = self._steps(mean), mean[:, len(self.nodes) // 2]
        reach = (mean - middle[:, None]).norm(dim=2).amax(1) + step.sum(1)
        most = self._most(outputs)
        return _Boxes(rows, half.prod(1), step, middle, reach, log_prior.amin(1), _log_mass(centre, half), most)

    def _most(self, outputs: Tensor) -> Tensor:
        """See `_Boxes.most`, of decoded nodes (b, k^L, D)."""
        return outputs[:, 0, :0]

    def _steps(self, mean: Tensor) -> Tensor:
        per_axis = self._per_axis(mean)
        steps = [per_axis.diff(dim=1 + axis).norm(dim=-1).flatten(1).amax(1) for axis in range(self.latent_dim)]
        return torch.stack(steps, 1)

    def _per_axis(self, of_nodes: Tensor) -> Tensor:
        return of_nodes.unflatten(1, (RULE[self.latent_dim],) * self.latent_dim)

    def _near(self, boxes: _Boxes, box: Tensor, group: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
        """Which pairs of a box and a group matter, (p,), and the log of the most that each can contribute, (p, 1).

        It is the mass of the box times the density at the least distance that its points can have from the group's. A
        pair matters unless that is far below the guess of the log of the integral, (g, m), at all points of the group.
        """
        between = (boxes.middle[box] - self.middle[group]).norm(dim=1)
        distance = (between - boxes.reach[box] - self.reach[group]).clamp(min=0)
        log_most = boxes.log_mass[box] - distance**2 / (2 * self.likelihood.dispersion)
        highest = torch.full_like(guess[:, 0], -math.inf).scatter_reduce(0, group, log_most, "amax")
        least = torch.minimum(guess.amin(1), highest) - NEGLIGIBLE
        return ~(log_most < least[group]), log_most[:, None]  # nan matters

    def _evaluate(
        self, boxes: _Boxes, box: Tensor, group: Tensor, scale: Tensor, log_most: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The contribution of pairs of a box and a group, (p,) each, to the integral, its error, and the new scale.

        The contributions, (p, m), and their errors along each axis, (p, L, m), are multiplied by exp(-scale). The
        scale, (g, m), is the largest log of the integrand so far.
        """
        estimate, peak = self._estimates(boxes, box, group)
        scale = scale.scatter_reduce(0, group[:, None].expand_as(peak), peak, "amax")
        estimate *= (boxes.volume[box, None] * (peak - scale[group]).exp())[:, None]
        share = estimate[:, 0]
        doubt = (estimate[:, 1:] - share[:, None]).abs()
        doubt += self._unresolved(boxes, box, peak, log_most, scale[group])
        return share, doubt, scale

    def _estimates(self, boxes: _Boxes, box: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        """Each rule's integral over a box of unit volume, times exp(-peak), (p, 1 + L, m), and the peak, (p, m).

        The peak is the largest log of the integrand at a node.
        """
        count = max(1, INTEGRANDS_AT_ONCE // (len(self.nodes) * self.weight.shape[1]))
        estimates, peaks = [], []
        for b, g in zip(box.split(count), group.split(count), strict=True):
            log_integrand = boxes.rows[b] @ self.columns[g]
            peaks.append(log_integrand.amax(1))
            estimates.append(self.rule @ log_integrand.sub_(peaks[-1][:, None]).exp_())
        return torch.cat(estimates), torch.cat(peaks)

    def _unresolved(self, boxes: _Boxes, box: Tensor, peak: Tensor, log_most: Tensor, scale: Tensor) -> Tensor:  # noqa: ARG002
        """What a pair could contribute along axes where its nodes are further apart than the noise: (p, L, m).

        It is the mass of the box times the largest density within one step of the nearest node, which has the log of
        the integrand `peak`, (p, m); times exp(-scale), (p, m).
        """
        step, log_mass = boxes.step[box], boxes.log_mass[box, None] - scale
        log_likelihood = peak - boxes.log_prior[box, None]
        nearest = (-2 * self.likelihood.dispersion * log_likelihood).clamp(min=0).sqrt()
        distance = (nearest[:, None] - step[..., None]).clamp(min=0)
        bound = (log_mass[:, None] - distance**2 / (2 * self.likelihood.dispersion)).clamp(max=600).exp()
        return bound * (step > RESOLVED_STEP * self.likelihood.unit)[..., None]


class _BoundedIntegral(_Integral):
    """The same for a family whose density is bounded over a box of outputs, as `Likelihood.most` says.

    A bound by distances would say little: binary data are far from the mean of every z.
    """

    def _most(self, outputs: Tensor) -> Tensor:
        per_axis = self._per_axis(outputs)
        steps = [per_axis.diff(dim=1 + axis).abs().flatten(1, -2).amax(1) for axis in range(self.latent_dim)]
        slack = torch.stack(steps).sum(0)
        slope, constant = self._bound(outputs.amin(1) - slack, outputs.amax(1) + slack)
        return torch.cat([slope, constant[:, None], torch.ones_like(constant)[:, None]], 1)

    def _bound(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        found = self.likelihood.most(low, high)
        if found is None:
            raise TypeError(f"{self.likelihood.name} has no bound over boxes of outputs")
        return found

    def _near(self, boxes: _Boxes, box: Tensor, group: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
        """Which pairs matter, (p,), and the log of the most that each can contribute to each point, (p, m).

        A pair matters unless that is far below the guess of the log of the integral at all points of the group.
        """
        count = max(1, INTEGRANDS_AT_ONCE // self.columns[0].numel())
        parts = [
            torch.einsum("pd,pdm->pm", boxes.most[b], self.columns[g])
            for b, g in zip(box.split(count), group.split(count), strict=True)
        ]
        log_most = boxes.log_mass[box, None] + torch.cat(parts).clamp(max=0)
        highest = torch.full_like(guess, -math.inf)
        highest = highest.scatter_reduce(0, group[:, None].expand_as(log_most), log_most, "amax")
        least = torch.minimum(guess, highest) - NEGLIGIBLE
        return ~(log_most < least[group]).all(1), log_most

    def _unresolved(self, boxes: _Boxes, box: Tensor, peak: Tensor, log_most: Tensor, scale: Tensor) -> Tensor:  # noqa: ARG002
        """The most that a pair could contribute, along axes where its nodes are further apart than the noise."""
        far = (boxes.step[box] > RESOLVED_STEP * self.likelihood.unit)[..., None]
        return (log_most - scale)[:, None].clamp(max=600).exp() * far


@lru_cache(maxsize=16)
def _first_boxes(latent_dim: int, radius: float) -> tuple[Tensor, Tensor]:
    """Boxes that tile a cube of half-width `radius`, at most FIRST_WIDTH wide at the origin and wider away from it."""
    centre = torch.zeros(1, latent_dim, dtype=torch.float64)
    half = torch.full_like(centre, radius)
    while True:
        nearest = (centre.abs() - half).clamp(min=0).norm(dim=1, keepdim=True)
        large = half > FIRST_WIDTH[latent_dim] / 2 * nearest.clamp(min=1.0)
        if not large.any():
            return centre, half
        split = large.any(1)
        halves = _bisect(centre[split], half[split], half[split].argmax(1))
        centre, half = torch.cat([centre[~split], halves[0]]), torch.cat([half[~split], halves[1]])


@cache
def _to_halves() -> Tensor:
    """From values at the k nodes for L = 1 to those of their polynomial at the nodes of both halves, (2 k, k)."""
    nodes = _rule(1)[0][:, 0]
    halves = torch.cat([nodes - 1, nodes + 1]) / 2
    at, there = (np.polynomial.legendre.legvander(each.numpy(), len(nodes) - 1) for each in (nodes, halves))
    return torch.tensor(there @ np.linalg.inv(at))


def _log_mass(centre: Tensor, half: Tensor) -> Tensor:
    """The log of the mass of N(0, I) in boxes (b, L), even where the mass underflows: (b,)."""
    near, far = log_ndtr(half - centre.abs()), log_ndtr(-half - centre.abs())
    return (near + torch.log1p(-(far - near).exp())).sum(1)


def _affordable(cost: Tensor, spare: float) -> Tensor:
    """Which boxes to accept: all if their errors sum to at most `spare`, else the best with an eighth of it."""
    order = cost.argsort()
    running = cost[order].cumsum(0)
    accept = torch.zeros(len(cost), dtype=torch.bool)
    accept[order] = running <= (spare if running[-1] <= spare else spare / 8)
    return accept


def _refine(centre: Tensor, half: Tensor, box: Tensor, cost: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes of pairs (p,) halved along the axis of largest cost (p, L), and the boxes of the halves, (2 p,)."""
    used, box = box.unique(return_inverse=True)
    axis = torch.zeros(len(used), half.shape[1], dtype=torch.float64).index_add(0, box, cost).argmax(1)
    centre, half = _bisect(centre[used], half[used], axis)
    return centre, half, torch.cat([box, box + len(used)])


def _bisect(centre: Tensor, half: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    """Each box (b, L) as two halves along its axis (b,)."""
    chosen = torch.nn.functional.one_hot(axis, centre.shape[1]).double()
    shift, half = chosen * half / 2, half * (1 - chosen / 2)
    return torch.cat([centre - shift, centre + shift]), half.repeat(2, 1)

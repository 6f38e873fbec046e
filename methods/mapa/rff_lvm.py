"""Codes of the training points by a latent variable model on random Fourier features, for three or more dimensions.

Above two latent dimensions neighbours are further apart than the noise, so a kernel of the noise's width gives each
point to itself. Four deterministic steps, which do not use the model's decoder, replace index posterior and placement:

1. The signal subspace: the principal axes whose variance noise alone does not explain. All other steps work in it.
2. Initial codes, a Gaussian posterior for each point: by probabilistic principal component analysis (Tipping & Bishop
   1999), and by Isomap (Tenenbaum et al. 2000). Where the data fold, the first one puts sheets on top of each other.
3. From each, expectation maximisation for a smooth map f from codes to data. The map is linear in random Fourier
   features, so its fit is ridge regression; the posterior of each code is Gaussian, by Gauss-Newton. The residual
   variance of f replaces s2 while it is larger. This anneals the posteriors (Ueda & Nakano 1998) while f improves. Of
   15 rounds, the start with the higher evidence after three takes the others.
4. Whitening of all codes at each step, such that their posteriors together have the moments of the prior.

Work that torch does not run, or that the cost model does not list, is charged by formula; CHARGES states the formulas.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from methods.common.posteriors import FullGaussian
from methods.contract.method import DecoderModel, Ledger, NullLedger, likelihood_of
from methods.mapa.layouts import isomap
from methods.mapa.noise import TINY, least_noise

FEATURES = 200
PREFERENCE = 10.0
LENGTH_SCALE = 1.5
MOST_LAID_OUT = 2000
TRIAL_ROUNDS = 3
ROUNDS = 15
SMALLEST = 1e-3
RIDGE_STEPS = 30
CLIMBS = 2
CLIMBS_ANEW = 10
DAMPING = 1e-2
CHARGES = {
    "eigenvectors": "9 n^3 for a symmetric matrix of n rows",
    "inverses": "2 L^3 for each of n matrices",
    "roots": "L^3 / 3 for each of n matrices",
}


@dataclass(frozen=True)
class Subspace:
    """The affine subspace that contains the signal.

    Args:
        shift: Its origin, (D,), in data units.
        axes: Its orthonormal axes, (D, r).
        beyond: The mean squared distance of the training points from it, in squared data units.
    """

    shift: Tensor
    axes: Tensor
    beyond: float

    def scores(self, x: Tensor) -> Tensor:
        """Coordinates along the axes, float64, on the CPU.

        Args:
            x: Data, (n, D).

        Returns:
            Scores, (n, r), in data units.
        """
        return (x.double().cpu() - self.shift) @ self.axes


@dataclass(frozen=True)
class Codes:
    """A Gaussian posterior N(mean, covariance) for the code of each point, float64.

    Args:
        mean: Means, (n, L).
        covariance: Covariances, (n, L, L).
    """

    mean: Tensor
    covariance: Tensor

    def nodes(self, pairs: int, ledger: Ledger) -> Tensor:
        """Antithetic draws that represent each posterior, the same at each call.

        Args:
            pairs: Number of pairs of draws.
            ledger: Where the work is accounted for.

        Returns:
            Codes, (2 pairs, n, L).
        """
        generator = torch.Generator().manual_seed(0)
        draws = torch.randn(pairs, *self.mean.shape, generator=generator, dtype=torch.float64)
        shifts = (_roots(self.covariance, ledger) @ draws[..., None])[..., 0]
        return torch.cat([self.mean + shifts, self.mean - shifts])

    def whitened(self, ledger: Ledger) -> Codes:
        """The codes, whitened: all posteriors together get mean 0 and covariance I, the moments of the prior.

        Of all linear maps that do this, the symmetric one changes the codes least.

        Args:
            ledger: Where the work is accounted for.
        """
        centred = self.mean - self.mean.mean(0)
        values, vectors = _eigenvectors(centred.T @ centred / len(centred) + self.covariance.mean(0), ledger)
        root = (vectors * values.rsqrt()) @ vectors.T
        return Codes(centred @ root, root @ self.covariance @ root)


@dataclass(frozen=True)
class Embedding:
    """What the embedding finds.

    Args:
        codes: The posteriors of the codes of the training points.
        posterior: The posterior q(z | x) for any x.
        noise: The noise variance s2, in squared data units: the given one, or an estimate if it is unknown.
    """

    codes: Codes
    posterior: SurrogatePosterior
    noise: float


def embed(x: Tensor, latent_dim: int, noise: float | None, ledger: Ledger, rounds: int = ROUNDS) -> Embedding:
    """Embed training points in L dimensions.

    Args:
        x: Training points, (n, D).
        latent_dim: L.
        noise: The noise variance s2, in squared data units; None if unknown.
        ledger: Where the work is accounted for.
        rounds: Number of rounds of expectation maximisation.

    Raises:
        ValueError: If L is not below both D and n.
    """
    n, data_dim = x.shape
    if not latent_dim < min(n, data_dim):
        raise ValueError(
            f"an embedding needs more data and coordinates than latent dimensions {latent_dim}, got {n} x {data_dim}"
        )
    subspace, variances = signal_subspace(x, latent_dim, noise, ledger)
    scores = subspace.scores(x)
    least = least_noise(float(variances.mean())) if noise is None else noise
    width = max(float(variances[latent_dim:].mean()), least)
    principal = principal_codes(scores, variances[:latent_dim], width)

    def fitted(codes: Codes, surrogate: Surrogate, residual: float) -> SurrogatePosterior:
        surrogate, residual = surrogate.fit(codes, scores, residual, least, ledger)
        return SurrogatePosterior(subspace, surrogate, residual, scores, codes)

    def improved(found: SurrogatePosterior, rounds: int) -> SurrogatePosterior:
        for _ in range(rounds):
            codes = climb(found.surrogate, scores, found.codes.mean, found.width, CLIMBS, ledger).whitened(ledger)
            found = fitted(codes, found.surrogate, found.width)
        return found

    starts = (principal, isometric_codes(scores, principal, ledger))
    trials = [
        improved(fitted(start, Surrogate.random(latent_dim), width), min(TRIAL_ROUNDS, rounds)) for start in starts
    ]
    best = improved(max(trials, key=lambda each: each.evidence(ledger)), max(rounds - TRIAL_ROUNDS, 0))
    implied = (best.width * scores.shape[1] + subspace.beyond) / data_dim if noise is None else noise
    return Embedding(best.codes, best, implied)


def signal_subspace(x: Tensor, latent_dim: int, noise: float | None, ledger: Ledger) -> tuple[Subspace, Tensor]:
    """The axes along which data vary more than noise alone could, and at least L + 1 of them if there are as many.

    Noise of variance s2 alone has no sample variance above s2 (1 + sqrt(D / n))^2 for large n and D (Marchenko & Pastur
    1967). An unknown s2 is estimated as the median sample variance divided by the median for unit noise (Gavish &
    Donoho 2014, section III.E).

    Args:
        x: Data, (n, D).
        latent_dim: L.
        noise: The noise variance s2, in squared data units; None if unknown.
        ledger: Where the work is accounted for.

    Returns:
        The subspace, and the sample variances along its axes, (r,), in descending order.
    """
    x = x.double().cpu()
    n, data_dim = x.shape
    shift = x.mean(0)
    variances, axes = _principal(x - shift, ledger)
    level = float(variances.median()) / median_noise_variance(data_dim / n) if noise is None else noise
    edge = level * (1 + math.sqrt(data_dim / n)) ** 2
    rank = min(max(latent_dim + 1, int((variances > edge).sum())), len(variances))
    return Subspace(shift, axes[:, :rank], float(variances[rank:].sum())), variances[:rank]


def median_noise_variance(ratio: float) -> float:
    """The median of the positive sample variances of unit noise (Marchenko & Pastur 1967).

    Args:
        ratio: D / n.
    """
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    angle = torch.linspace(0, math.pi, 2001, dtype=torch.float64)  # in which the density is smooth at both ends
    value = low + (high - low) * (1 - angle.cos()) / 2
    below = (angle.sin().square() / value.clamp(min=1e-300)).cumsum(0)
    return float(value[int(torch.searchsorted(below, below[-1] / 2))])


def principal_codes(scores: Tensor, variances: Tensor, width: float) -> Codes:
    """Posteriors of the codes under probabilistic principal component analysis (Tipping & Bishop 1999, section 3.2).

    Args:
        scores: Scores, (n, r), in descending order of variance.
        variances: The variances of the first L scores, (L,).
        width: The noise variance.
    """
    signal = (variances - width).clamp(min=SMALLEST * max(float(variances[0]), width))
    mean = scores[:, : len(signal)] * signal.sqrt() / (signal + width)
    covariance = torch.diag(width / (signal + width))
    return Codes(mean, covariance.expand(len(mean), -1, -1))


def isometric_codes(scores: Tensor, principal: Codes, ledger: Ledger) -> Codes:
    """Codes that keep distances along the data, with the covariances of other codes.

    Args:
        scores: Scores, (n, r). Those after the first 2,000 have the code of their nearest one among these.
        principal: The other codes.
        ledger: Where the work is accounted for.
    """
    few = scores[:MOST_LAID_OUT]
    layout = torch.from_numpy(isomap(few.numpy(), principal.mean.shape[1], ledger))
    layout = (layout - layout.mean(0)) / layout.std(0).clamp(min=TINY)
    if len(few) < len(scores):
        layout = layout[ledger.run("nearest points", torch.cdist, scores, few).argmin(1)]
    return Codes(layout, principal.covariance).whitened(ledger)


@dataclass(frozen=True)
class Surrogate:
    """A smooth map from codes to scores, linear in 1, z and cos(w_m^T z + b_m) (Rahimi & Recht 2007, algorithm 1).

    1 and z are multiplied by 10, so the ridge hardly shrinks the linear part. Otherwise the map bends linear data.
    The cosines approximate the kernel exp(-|z - z'|^2 / (2 l^2 L)) with l = 1.5, so within the bulk of the prior the
    map bends about equally for any L.

    Args:
        frequency: The frequencies w_m, (L, M).
        phase: The phases b_m, (M,), in radians.
        coefficient: The coefficients of the features, (1 + L + M, r).
    """

    frequency: Tensor
    phase: Tensor
    coefficient: Tensor

    @staticmethod
    def random(latent_dim: int, features: int = FEATURES) -> Surrogate:
        """A map with random features, the same at each call, and no coefficients yet.

        Args:
            latent_dim: L.
            features: M, the number of cosines.
        """
        generator = torch.Generator().manual_seed(0)
        frequency = torch.randn(latent_dim, features, generator=generator, dtype=torch.float64)
        phase = 2 * math.pi * torch.rand(features, generator=generator, dtype=torch.float64)
        nothing = torch.zeros(1 + latent_dim + features, 0, dtype=torch.float64)
        return Surrogate(frequency / (LENGTH_SCALE * math.sqrt(latent_dim)), phase, nothing)

    def features(self, z: Tensor) -> Tensor:
        """The features of codes, (..., L) -> (..., 1 + L + M)."""
        waves = math.sqrt(2) * torch.cos(z @ self.frequency + self.phase)
        return torch.cat([PREFERENCE * torch.ones_like(z[..., :1]), PREFERENCE * z, waves], -1)

    def decode(self, z: Tensor) -> Tensor:
        """The scores to which the map takes codes, (..., L) -> (..., r)."""
        return self.features(z) @ self.coefficient

    def jacobian(self, z: Tensor) -> Tensor:
        """The Jacobian at each code, (n, L) -> (n, L, r). Row a is the derivative along axis a of z."""
        latent_dim = z.shape[1]
        slopes = -math.sqrt(2) * torch.sin(z @ self.frequency + self.phase)[:, None] * self.frequency
        return PREFERENCE * self.coefficient[1 : 1 + latent_dim] + slopes @ self.coefficient[1 + latent_dim :]

    def fit(self, codes: Codes, scores: Tensor, width: float, least: float, ledger: Ledger) -> tuple[Surrogate, float]:
        """Fit the coefficients by ridge regression of scores on codes.

        Evidence maximisation sets the ridge of each coordinate (MacKay 1992). Directions of the features that rounding
        does not resolve get no coefficient: it would be rounding that the evidence multiplies, without limit.

        Args:
            codes: The posteriors of the codes, of n points.
            scores: Scores, (n, r).
            width: The noise variance at which the evidence is maximised.
            least: The lower bound of the residual variance.
            ledger: Where the work is accounted for.

        Returns:
            The fitted map, and its residual variance or `least`, whichever is larger.
        """
        nodes = codes.nodes(1, ledger)
        features = self.features(nodes)
        flat = features.flatten(0, 1)
        values, vectors = _eigenvectors(flat.T @ flat / len(features), ledger)
        resolved = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
        right = (vectors.T @ (features.mean(0).T @ scores) / width).where(resolved[:, None], 0.0)
        precision = values.clamp(min=0)[:, None] / width
        prior = (scores.square().mean(0) / len(values)).clamp(min=1e-12 * width)
        for _ in range(RIDGE_STEPS):
            posterior = precision + 1 / prior
            prior = ((right / posterior).square() + 1 / posterior).mean(0)
        found = replace(self, coefficient=vectors @ (right / (precision + 1 / prior)))
        left = float((scores - flat.unflatten(0, features.shape[:2]) @ found.coefficient).square().mean())
        return found, max(left, least)


class SmoothMap(Protocol):
    """A map from codes to scores with its derivatives."""

    def decode(self, z: Tensor) -> Tensor:
        """The scores to which the map takes codes, (..., L) -> (..., r)."""
        ...

    def jacobian(self, z: Tensor) -> Tensor:
        """The Jacobian at each code, (n, L) -> (n, L, r). Row a is the derivative along axis a of z."""
        ...


@dataclass(frozen=True)
class LearnedMap:
    """The decoder of a generative model as a smooth map from codes to embedded outputs, float64, on the CPU.

    Args:
        model: The generative model.
    """

    model: DecoderModel

    def decode(self, z: Tensor) -> Tensor:
        """The embedded outputs, where noise is isotropic: (..., L) -> (..., D)."""
        return likelihood_of(self.model).embed(self.model.decode(z).double()).cpu()

    def jacobian(self, z: Tensor) -> Tensor:
        """The Jacobian at each code, (n, L) -> (n, L, D).

        The product of a vector u with the Jacobian is linear in u, so its derivative along u gives one row for each
        axis of z, and no backward pass for each of D coordinates.
        """
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            x = self.decode(z)
            u = torch.zeros_like(x, requires_grad=True)
            (product,) = torch.autograd.grad(x, z, u, create_graph=True)
            rows = [torch.autograd.grad(each.sum(), u, retain_graph=True)[0] for each in product.unbind(1)]
        return torch.stack(rows, 1)


def climb(surrogate: SmoothMap, scores: Tensor, start: Tensor, width: float, steps: int, ledger: Ledger) -> Codes:
    """Gaussian posteriors of codes: N(m, (I + J J^T / width)^-1), where m is a mode and J is the Jacobian there.

    Levenberg-Marquardt maximises log p(scores, z). A step that lowers it is rejected, and the damping grows.

    Args:
        surrogate: The map from codes to scores.
        scores: Scores, (n, r).
        start: The codes to start from, (n, L).
        width: The noise variance.
        steps: Number of steps.
        ledger: Where the work is accounted for.
    """
    mean, value = start, _log_joint(surrogate, scores, start, width)
    damping = torch.full_like(value, DAMPING)
    for _ in range(steps):
        jacobian, precision = _precision(surrogate, mean, width)
        residual = scores - surrogate.decode(mean)
        gradient = (jacobian @ residual[..., None])[..., 0] / width - mean
        damped = precision + torch.diag_embed(damping[:, None] * precision.diagonal(dim1=1, dim2=2))
        moved = mean + (_inverses(damped, ledger) @ gradient[..., None])[..., 0]
        new = _log_joint(surrogate, scores, moved, width)
        better = new > value
        mean, value = torch.where(better[:, None], moved, mean), torch.where(better, new, value)
        damping = damping * torch.where(better, 0.1, 10.0)
    return Codes(mean, _inverses(_precision(surrogate, mean, width)[1], ledger))


def _precision(surrogate: SmoothMap, z: Tensor, width: float) -> tuple[Tensor, Tensor]:
    jacobian = surrogate.jacobian(z)
    return jacobian, jacobian @ jacobian.mT / width + torch.eye(z.shape[1], dtype=z.dtype)


def _log_joint(surrogate: SmoothMap, scores: Tensor, z: Tensor, width: float) -> Tensor:
    """log p(scores, z) up to a constant, (n,), in nats."""
    return -(scores - surrogate.decode(z)).square().sum(1) / (2 * width) - z.square().sum(1) / 2


class GaussianAtMode(FullGaussian):
    """q(z | x) = N(m(x), S(x)) at a mode of p(z | x), float64."""

    @abstractmethod
    def gaussian(self, x: Tensor) -> Codes:
        """The posterior of each x, on the CPU: (n, D) -> (n, L), (n, L, L)."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """m, the Cholesky factor of S and its log determinant: (n, D) -> (n, L), (n, L, L), (n,)."""
        q = self.gaussian(x)
        root = torch.linalg.cholesky(q.covariance)
        return q.mean, root, root.diagonal(dim1=1, dim2=2).log().sum(1)


@dataclass(frozen=True)
class SurrogatePosterior(GaussianAtMode):
    """q(z | x) = N(m, S) at a mode under the surrogate map, searched from the code of the nearest training point.

    Args:
        subspace: The signal subspace, of r dimensions.
        surrogate: The map from codes to scores.
        width: The noise variance in the subspace, in squared data units.
        scores: The scores of the N training points, (N, r).
        codes: The posteriors of the codes of the training points.
    """

    subspace: Subspace
    surrogate: Surrogate
    width: float
    scores: Tensor
    codes: Codes

    def gaussian(self, x: Tensor) -> Codes:
        """The posterior of each x, on the CPU.

        Args:
            x: Data, (n, D).
        """
        scores = self.subspace.scores(x)
        nearest = torch.cdist(scores, self.scores).argmin(1)
        return climb(self.surrogate, scores, self.codes.mean[nearest], self.width, CLIMBS_ANEW, NullLedger())

    def evidence(self, ledger: Ledger) -> float:
        """The mean log p(scores) of the training points in nats, by Laplace's method at their codes.

        Args:
            ledger: Where the work is accounted for.
        """
        volume = _roots(self.codes.covariance, ledger).diagonal(dim1=1, dim2=2).log().sum(1)
        noise = self.scores.shape[1] / 2 * math.log(2 * math.pi * self.width)
        return float((_log_joint(self.surrogate, self.scores, self.codes.mean, self.width) + volume).mean()) - noise


@dataclass(frozen=True)
class LearnedPosterior(GaussianAtMode):
    """q(z | x) = N(m, S) at a mode under the learned decoder, searched from the mode under the surrogate map.

    Args:
        start: The posterior under the surrogate map.
        model: The generative model.
    """

    start: SurrogatePosterior
    model: DecoderModel

    def gaussian(self, x: Tensor) -> Codes:
        """The posterior of each x, on the CPU.

        Args:
            x: Data, (n, D).
        """
        start, likelihood = self.start.gaussian(x).mean, likelihood_of(self.model)
        place = likelihood.embed(likelihood.outputs(x.double())).cpu()
        return climb(LearnedMap(self.model), place, start, float(likelihood.dispersion), CLIMBS_ANEW, NullLedger())


def _principal(centred: Tensor, ledger: Ledger) -> tuple[Tensor, Tensor]:
    """Variances in descending order and axes (D, min(n, D)) of centred data (n, D), by the smaller Gram matrix."""
    n, data_dim = centred.shape
    if data_dim <= n:
        values, axes = _eigenvectors(centred.T @ centred / n, ledger)
        return values.flip(0).clamp(min=0), axes.flip(1)
    values, left = _eigenvectors(centred @ centred.T / n, ledger)
    values, left = values[1:].flip(0), left[:, 1:].flip(1)  # centring leaves n - 1 dimensions
    return values.clamp(min=0), centred.T @ left / (n * values.clamp(min=1e-300)).sqrt()


def _eigenvectors(symmetric: Tensor, ledger: Ledger) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues and the eigenvectors in columns, by LAPACK."""
    ledger.charge("eigenvectors", 9.0 * len(symmetric) ** 3)
    values, vectors = np.linalg.eigh(symmetric.numpy())
    return torch.from_numpy(values), torch.from_numpy(vectors)


def _inverses(matrices: Tensor, ledger: Ledger) -> Tensor:
    """The inverses of matrices (n, L, L), by LAPACK."""
    ledger.charge("inverses", 2.0 * len(matrices) * matrices.shape[1] ** 3)
    return torch.from_numpy(np.linalg.inv(matrices.numpy()))


def _roots(matrices: Tensor, ledger: Ledger) -> Tensor:
    """Lower Cholesky factors of matrices (n, L, L), by LAPACK."""
    ledger.charge("roots", len(matrices) * matrices.shape[1] ** 3 / 3)
    return torch.from_numpy(np.linalg.cholesky(matrices.numpy()))

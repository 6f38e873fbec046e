"""A posterior fitted to each point by itself, a precise proposal for importance sampling even if it is narrow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.common.local_gaussian import spread_codes
from methods.contract.method import DecoderModel, Posterior, likelihood_of

CODES = 4096
STARTS = 4
WIDENED = 16.0
STEPS = 12
CLOSE = 1e-3
DIFFERENCE = 1e-3
DEGREES_OF_FREEDOM = 8
VALUES_AT_ONCE = 4_000_000
LOWEST = -1e300


@dataclass(frozen=True)
class LaplaceMixture(Posterior):
    """A mixture of Student t at modes of p(z | x), with the inverse of the Gauss-Newton precision, I + J^T J / s2.

    The modes are found from several codes for each x by Levenberg-Marquardt (Marquardt 1963). A mode is weighted by its
    Laplace evidence (Tierney & Kadane 1986). The tails of the t, with 8 degrees of freedom, keep weights bounded. For
    other families than the Gaussian, J^T J / s2 is the Fisher information.

    Args:
        model: The generative model.
        latent_dim: L, the dimension of z.
    """

    model: DecoderModel
    latent_dim: int

    def sample(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws for each x (n, D), (count, n, L), with log q(z | x) in nats, (count, n), float64."""
        with torch.no_grad():
            parts = [self._sample(part, count, generator) for part in x.split(self._points_at_once(x))]
        z, log_q = zip(*parts, strict=True)
        return torch.cat(z, 1), torch.cat(log_q, 1)

    def _points_at_once(self, x: Tensor) -> int:
        return max(1, VALUES_AT_ONCE // (x.shape[1] * STARTS * (self.latent_dim + 1)))

    def _sample(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        mode, value, precision = self._climb(x.double(), self._starts(x.double(), generator))
        root = torch.linalg.cholesky_ex(precision).L  # (k, n, L, L)
        half_log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_weight = torch.log_softmax((value - half_log_det).nan_to_num(LOWEST, LOWEST, LOWEST), 0)
        chosen = torch.multinomial(log_weight.exp().T, count, replacement=True, generator=generator).T
        rows = torch.arange(len(x), device=x.device)
        t = _student((*chosen.shape, self.latent_dim), generator)
        z = mode[chosen, rows] + torch.linalg.solve_triangular(root.mT[chosen, rows], t[..., None], upper=True)[..., 0]
        distance = torch.einsum("knij,ckni->cknj", root, z[:, None] - mode).square().sum(-1)
        return z, torch.logsumexp(log_weight + half_log_det + _log_student(distance, self.latent_dim), 1)

    def _starts(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The best of 4,096 codes for each x, and others drawn with a larger noise variance: (k, n, L)."""
        codes = spread_codes(CODES, self.latent_dim).to(x.device)
        value = likelihood_of(self.model).compared(x, self.model.decode(codes).double())
        log_likelihood = value.nan_to_num(LOWEST, LOWEST, LOWEST)
        best = (log_likelihood - codes.square().sum(1) / 2).argmax(1)
        weight = torch.softmax(log_likelihood / WIDENED, 1)
        others = torch.multinomial(weight, STARTS - 1, replacement=True, generator=generator).T
        return codes[torch.cat([best[None], others])]

    def _climb(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maxima of log p(x, z) from z (k, n, L), with values and precisions; damping grows where a step fails."""
        damping = torch.full(z.shape[:2], 1e-2, dtype=torch.float64, device=z.device)
        value, gradient, precision = self._expand(x, z)
        for _ in range(STEPS):
            damped = precision + torch.diag_embed(damping[..., None] * precision.diagonal(dim1=-2, dim2=-1))
            moved = z + torch.linalg.solve_ex(damped, gradient).result
            new = self._expand(x, moved)
            better = new[0] > value
            done = not (new[0] > value + CLOSE).any()
            z = torch.where(better[..., None], moved, z)
            value = torch.where(better, new[0], value)
            gradient = torch.where(better[..., None], new[1], gradient)
            precision = torch.where(better[..., None, None], new[2], precision)
            damping = damping * torch.where(better, 0.1, 10.0)
            if done:
                break
        return z, value, precision

    def _expand(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log p(x, z) up to constants, (k, n), its gradient, (k, n, L), and Gauss-Newton precision, (k, n, L, L)."""
        shifts = DIFFERENCE * torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        shifted = self.model.decode(z[..., None, :] + torch.cat([torch.zeros_like(shifts[:1]), shifts])).double()
        centre, likelihood = shifted[..., 0, :], likelihood_of(self.model)
        jacobian, embedded = (
            (each[..., 1:, :] - each[..., :1, :]) / DIFFERENCE for each in (shifted, likelihood.embed(shifted))
        )  # (k, n, L, D)
        value = -likelihood.deviance(x, centre) / (2 * likelihood.dispersion) - z.square().sum(-1) / 2
        gradient = (jacobian @ (x - likelihood.mean(centre))[..., None])[..., 0] / likelihood.dispersion - z
        precision = embedded @ embedded.mT / likelihood.dispersion
        return value, gradient, precision + torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)


def _student(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draws of the standard t, (..., L): a normal over the root of a mean chi-squared variable."""

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=generator.device, dtype=torch.float64)

    return normal(*shape) / normal(*shape[:-1], DEGREES_OF_FREEDOM).square().mean(-1, keepdim=True).sqrt()


def _log_student(squared: Tensor, dim: int) -> Tensor:
    """The log density of the standard t in `dim` dimensions, in nats, at squared distances from its centre."""
    nu = DEGREES_OF_FREEDOM
    constant = math.lgamma((nu + dim) / 2) - math.lgamma(nu / 2) - dim / 2 * math.log(math.pi * nu)
    return constant - (nu + dim) / 2 * torch.log1p(squared / nu)

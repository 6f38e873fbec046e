"""Families of approximate posteriors q(z | x)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.special import ndtri

from methods.model import GaussianModel, Standardiser, mlp, standard_normal_log_prob


class Prior:
    """q(z | x) = N(0, I_L), whatever x."""

    def __init__(self, latent_dim: int):
        self.latent_dim = latent_dim

    def sample(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Standard normal draws (count, n, L) and their log-densities (count, n)."""
        z = torch.randn(count, len(x), self.latent_dim, generator=generator, device=x.device)
        return z, standard_normal_log_prob(z)


class DiagonalGaussian(nn.Module):
    """q(z | x) = N(mu(x), diag sigma(x)^2) with a network for mu and log sigma (Kingma & Welling 2014, eq. 9)."""

    def __init__(self, network: nn.Sequential, units: Standardiser):
        super().__init__()
        self.network = network
        self.units = units

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation: (n, D) -> (n, L), (n, L)."""
        mean, log_scale = self.network(self.units(x.to(self.units.scale.dtype))).chunk(2, -1)
        return mean, log_scale

    def sample(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws (count, n, L) and their log-densities (count, n)."""
        mean, log_scale = self.moments(x)
        noise = torch.randn(count, *mean.shape, generator=generator, device=mean.device)
        return mean + log_scale.exp() * noise, standard_normal_log_prob(noise) - log_scale.sum(-1)


def build_encoder(
    model: GaussianModel,
    generator: torch.Generator,
    hidden: Sequence[int] = (64, 64),
    activation: str = "tanh",
) -> DiagonalGaussian:
    """An amortised diagonal Gaussian for `model`, at random initial weights."""
    network = mlp([model.data_dim, *hidden, 2 * model.latent_dim], activation, generator)
    return DiagonalGaussian(network, model.units)


class PriorCells:
    """N boxes, each with 1/N of the mass of N(0, I_L), that part latent space.

    A balanced k-d tree in u = Phi(z): a box that stands for n codes is cut along one axis after another, in the
    proportion of ceil(n/2) to floor(n/2). For L = 1 the boxes are the N quantile intervals, in order.

    low, high: the boxes' corners in u, (N, L). codes: their centres in u, taken back to z, (N, L).
    """

    def __init__(self, n: int, latent_dim: int):
        low, high = torch.zeros(1, latent_dim).double(), torch.ones(1, latent_dim).double()
        share = torch.tensor([n])
        axis = 0
        while share.max() > 1:
            low, high, share = _cut(low, high, share, axis)
            axis = (axis + 1) % latent_dim
        self.low, self.high = low, high
        self.codes = ndtri((low + high) / 2)

    def draw(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """A draw of the prior within each box of `index`: (...) -> (..., L)."""
        low, high = self.low.to(index.device)[index], self.high.to(index.device)[index]
        u = torch.rand(low.shape, generator=generator, dtype=torch.float64, device=index.device)
        return ndtri((low + (high - low) * u).clamp(1e-16, 1 - 1e-16))


def _cut(low: Tensor, high: Tensor, share: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the boxes that stand for several codes in two along an axis, keeping the order of boxes."""
    first = (share + 1) // 2
    middle = low[:, axis] + (high - low)[:, axis] * first / share
    lows, highs = low.repeat_interleave(2, 0), high.repeat_interleave(2, 0)
    highs[0::2, axis] = middle
    lows[1::2, axis] = middle
    shares = torch.stack([first, share - first], 1).flatten()
    return lows[shares > 0], highs[shares > 0], shares[shares > 0]


class CellPosterior:
    """q(z | x) = sum_i p(i | x) p(z | z in box i), the prior reweighted box by box.

    As every box has 1/N of the prior, KL(q(z | x) || prior) = KL(p(i | x) || uniform), exactly.
    log_index: log p(i | x), (n, D) -> (n, N), normalised over i.
    """

    def __init__(self, log_index: Callable[[Tensor], Tensor], cells: PriorCells):
        self.log_index = log_index
        self.cells = cells

    def sample(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws (count, n, L) and their log-densities log(N p(i | x)) + log N(z; 0, I), (count, n)."""
        log_index = self.log_index(x)
        index = torch.multinomial(log_index.exp(), count, replacement=True, generator=generator)
        z = self.cells.draw(index.T, generator)
        log_weight = log_index.gather(1, index).T + math.log(log_index.shape[1])
        return z, log_weight + standard_normal_log_prob(z)

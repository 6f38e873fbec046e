"""Probabilistic PCA (Tipping & Bishop 1999): the problem for which everything has a closed form."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from datasets.base import Problem


def linear_gaussian(latent_dim: int | None = None, data_dim: int | None = None, noise_variance: float = 0.1) -> Problem:
    """W z + m with a fixed random W (D x L) and m.

    Args:
        latent_dim: L, by default 1.
        data_dim: D, by default L + 1.
        noise_variance: s2, in squared data units.

    Raises:
        ValueError: If a dimension or the noise variance is not positive.
    """
    latent = 1 if latent_dim is None else latent_dim
    data = latent + 1 if data_dim is None else data_dim
    if latent < 1 or data < 1 or noise_variance <= 0:
        raise ValueError(
            f"linear_gaussian needs positive dimensions and noise_variance, got {latent}, {data}, {noise_variance}"
        )
    generator = torch.Generator().manual_seed(1999)
    weight = torch.randn(data, latent, generator=generator, dtype=torch.float64)
    offset = torch.randn(data, generator=generator, dtype=torch.float64)
    covariance = weight @ weight.T + noise_variance * torch.eye(data, dtype=torch.float64)
    marginal = MultivariateNormal(offset, covariance)

    def decoder(z: Tensor) -> Tensor:
        return z @ weight.T + offset

    return Problem("linear_gaussian", latent, data, noise_variance, decoder, marginal.log_prob)

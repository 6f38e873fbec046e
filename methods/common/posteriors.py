"""Gaussian families of approximate posteriors q(z | x), and what amortised posteriors share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.special import ndtri

from methods.common.local_gaussian import laplace, maximise_elbo
from methods.common.remembered import Remembered
from methods.contract.architecture import ACTIVATION
from methods.contract.decoder import GenerativeModel, Standardiser, mlp, standard_normal_log_prob
from methods.contract.method import DecoderModel, Posterior


def information(log_q: Tensor) -> Tensor:
    """log q(z | x) - log q(z) of one code z of each x, with q(z) the mean of q(z | x) over the given x (n,), in nats.

    Its mean estimates the mutual information I_q(x, z) (He et al. 2019, eq. 6; Hoffman & Johnson 2016). In expectation
    it is at most I_q(x, z) over all x, and it is at most log n (van den Oord et al. 2018).

    Args:
        log_q: log q(z_i | x_j) in row i and column j, (n, n).
    """
    return torch.log_softmax(log_q, 1).diagonal() + math.log(len(log_q))


class Prior(Posterior):
    """q(z | x) = N(0, I_L) for every x.

    Args:
        latent_dim: L.
    """

    def __init__(self, latent_dim: int):
        self.latent_dim = latent_dim

    def sample(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Standard normal draws (count, n, L) and their log-densities (count, n)."""
        z = torch.randn(count, len(x), self.latent_dim, generator=generator, device=x.device)
        return z, standard_normal_log_prob(z)

    def from_uniform(self, x: Tensor, u: Tensor) -> Tensor:
        """The quantiles of u along each axis: (n, D), (m, L) -> (m, n, L)."""
        return ndtri(u).to(x)[:, None].expand(-1, len(x), -1)

    def log_prob(self, z: Tensor, x: Tensor) -> Tensor:
        """log N(z; 0, I) for every x: (m, L), (n, D) -> (m, n)."""
        return standard_normal_log_prob(z)[:, None].expand(-1, len(x))

    def best(self, model: DecoderModel, x: Tensor) -> Prior:  # noqa: ARG002
        """Itself, the only member of the family."""
        return self


class Gaussian(Posterior):
    """q(z | x) = N(mu(x), diag sigma(x)^2)."""

    @abstractmethod
    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation: (n, D) -> (n, L), (n, L)."""

    def sample(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws (count, n, L) and their log-densities (count, n)."""
        mean, log_scale = self.moments(x)
        noise = torch.randn(count, *mean.shape, generator=generator, device=mean.device)
        return mean + log_scale.exp() * noise, standard_normal_log_prob(noise) - log_scale.sum(-1)

    def from_uniform(self, x: Tensor, u: Tensor) -> Tensor:
        """The quantiles of u along each axis: (n, D), (m, L) -> (m, n, L)."""
        mean, log_scale = self.moments(x)
        return mean + log_scale.exp() * ndtri(u).to(mean)[:, None]

    def log_prob(self, z: Tensor, x: Tensor) -> Tensor:
        """The density of every q(z | x) at every code: (m, L), (n, D) -> (m, n)."""
        mean, log_scale = self.moments(x)
        noise = (z.to(mean)[:, None] - mean) * (-log_scale).exp()
        peak = standard_normal_log_prob(torch.zeros_like(mean)) - log_scale.sum(-1)
        return torch.sub(peak, noise.square().sum(-1), alpha=0.5)

    def best(self, model: DecoderModel, x: Tensor) -> LocalGaussian:
        """The Gaussians of highest ELBO that gradient ascent finds, from here and from a mode of p(z | x)."""
        here = self.moments(x)
        return LocalGaussian(*maximise_elbo(model, x, here, laplace(model, x, here[0].shape[1])))


class LocalGaussian(Gaussian):
    """One Gaussian for each of n given data, without an encoder. Every x must be these data.

    Args:
        mean: Means, (n, L).
        log_scale: Log standard deviations, (n, L).
    """

    def __init__(self, mean: Tensor, log_scale: Tensor):
        self.mean, self.log_scale = mean, log_scale

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """The given mean and log standard deviation."""
        return self.mean, self.log_scale


class PerDatumGaussian(Gaussian):
    """The best diagonal Gaussian for each x, found by gradient ascent from a mode of p(z | x).

    The model must not change between calls, as what was found is remembered.

    Args:
        model: The generative model.
        latent_dim: L.
    """

    def __init__(self, model: DecoderModel, latent_dim: int):
        self._found = Remembered(lambda x: maximise_elbo(model, x, laplace(model, x, latent_dim)))

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation: (n, D) -> (n, L), (n, L)."""
        return self._found(x)


class FullGaussian(Posterior):
    """q(z | x) = N(mu(x), T(x) T(x)') with a full covariance. T is lower triangular."""

    @abstractmethod
    def moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """mu, T and log det T: (n, D) -> (n, L), (n, L, L), (n,)."""

    def sample(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws (count, n, L) and their log-densities (count, n)."""
        mean, root, log_det = (each.to(generator.device) for each in self.moments(x))
        noise = torch.randn(count, *mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + times(root, noise), standard_normal_log_prob(noise) - log_det

    def from_uniform(self, x: Tensor, u: Tensor) -> Tensor:
        """mu + T e at the normal quantiles e of u: (n, D), (m, L) -> (m, n, L)."""
        mean, root, _ = (each.to(u.device) for each in self.moments(x))
        return mean + times(root, ndtri(u).to(mean)[:, None])

    def log_prob(self, z: Tensor, x: Tensor) -> Tensor:
        """The density of every q(z | x) at every code: (m, L), (n, D) -> (m, n)."""
        mean, root, log_det = (each.to(z.device) for each in self.moments(x))
        residual = (z.to(mean)[:, None] - mean).movedim(0, -1)
        noise = torch.linalg.solve_triangular(root, residual, upper=False).movedim(-1, 0)
        return standard_normal_log_prob(noise) - log_det


def times(root: Tensor, noise: Tensor) -> Tensor:
    """T e for each x: (n, L, L), (m, n, L) -> (m, n, L)."""
    return (root @ noise[..., None]).squeeze(-1)


class Amortised(nn.Module, Posterior):
    """q(z | x) for any x by one network.

    Args:
        network: From x in standard units, (n, D), to the outputs that define q.
        units: The map from data units to standard units.
    """

    def __init__(self, network: nn.Sequential, units: Standardiser):
        super().__init__()
        self.network = network
        self.units = units

    def outputs(self, x: Tensor) -> Tensor:
        """The outputs of the network for x in data units: (n, D) -> (n, outputs)."""
        return self.network(self.units(x.to(self.units.scale.dtype)))

    @abstractmethod
    def sample(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws (count, n, L) and their log-densities (count, n)."""


class DiagonalGaussian(Gaussian, Amortised):
    """A diagonal Gaussian whose mu and log sigma are outputs of a network (Kingma & Welling 2014, eq. 9)."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation: (n, D) -> (n, L), (n, L)."""
        mean, log_scale = self.outputs(x).chunk(2, -1)
        return mean, log_scale


def build_encoder(
    model: GenerativeModel,
    generator: torch.Generator,
    hidden: Sequence[int] | None = None,
) -> DiagonalGaussian:
    """An amortised diagonal Gaussian at random initial weights, with tanh between its layers.

    Args:
        model: The generative model, which gives the sizes of input and codes.
        generator: The source of the initial weights.
        hidden: Widths of the hidden layers; None for those of the model.
    """
    widths = model.hidden if hidden is None else hidden
    network = mlp([model.data_dim, *widths, 2 * model.latent_dim], ACTIVATION, generator)
    return DiagonalGaussian(network, model.units)

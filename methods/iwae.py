"""The importance weighted autoencoder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.common.posteriors import Gaussian, build_encoder
from methods.common.training import Objective, train_jointly
from methods.contract.decoder import GaussianModel
from methods.contract.method import Fitted, Method, Task, require
from methods.contract.search_space import Choice, Range
from methods.vae import VAE


def importance_bound(model: GaussianModel, posterior: Gaussian, x: Tensor, noise: Tensor) -> Tensor:
    """log (1/K) sum_k p(x, z_k) / q(z_k | x) of each x in nats: (n, D), (K, n, L) -> (n,).

    z_k = mu + sigma * noise_k (Burda et al. 2016, eq. 8). Its mean over the noise is at most log p(x), rises with K,
    and is the ELBO for K = 1.
    """
    mean, log_scale = posterior.moments(x)
    z = mean + log_scale.exp() * noise
    return log_mean_exp(_log_weights(model, x, z, noise, log_scale))


def importance_weighted(model: GaussianModel, posterior: Gaussian, x: Tensor, noise: Tensor) -> Objective:
    """The importance weighted bound, differentiated as it stands (Burda et al. 2016, eq. 13)."""
    return Objective.of(importance_bound(model, posterior, x, noise))


def doubly_reparameterised(model: GaussianModel, posterior: Gaussian, x: Tensor, noise: Tensor) -> Objective:
    """The same bound, and a surrogate that gives q the gradient sum_k w_k^2 (d log w_k / d z_k) (d z_k / d phi).

    w_k are the normalised weights (Tucker et al. 2019, IWAE-DReG). The gradient has the same expectation and less
    variance; the model's is sum_k w_k d log w_k / d theta, as without it.
    """
    mean, log_scale = posterior.moments(x)
    z = mean + log_scale.exp() * noise
    standardised = (z - mean.detach()) / log_scale.detach().exp()
    log_weights = _log_weights(model, x, z, standardised, log_scale.detach())
    weights = torch.softmax(log_weights.detach(), 0)
    if z.requires_grad:
        z.register_hook(lambda gradient: weights[..., None] * gradient)  # the second factor w_k; the sum has the first
    return Objective(log_mean_exp(log_weights.detach()), (weights * log_weights).sum(0))


def _log_weights(model: GaussianModel, x: Tensor, z: Tensor, standardised: Tensor, log_scale: Tensor) -> Tensor:
    """log p(x, z) - log q(z | x), (K, n), for codes z and (z - mu) / sigma, both (K, n, L)."""
    return model.log_likelihood(x, z) + 0.5 * (standardised.square() - z.square()).sum(-1) + log_scale.sum(-1)


def log_mean_exp(values: Tensor) -> Tensor:
    """log of the mean of exp over the first axis: (K, ...) -> (...)."""
    return torch.logsumexp(values, 0) - math.log(len(values))


@dataclass(frozen=True)
class IWAE(Method):
    """Joint training of decoder and encoder on the importance weighted bound (Burda et al. 2016, eq. 8).

    What is fitted has the encoder's Gaussian for q(z | x), and its ELBO is looser than the bound that was trained.

    samples: K, codes per datum and step. steps, batch_size, learning_rate: as for the VAE.
    """

    colour_group: ClassVar[str] = "iwae"

    samples: int = 10
    steps: int = 6000
    batch_size: int = 100
    learning_rate: float = 1e-2

    search: ClassVar[Mapping[str, Range]] = {**VAE.search, "samples": Choice((5, 10, 20))}
    objective = staticmethod(importance_weighted)

    def __post_init__(self) -> None:
        require(self, positive=("samples", "steps", "batch_size", "learning_rate"))

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yields after every step."""
        posterior = build_encoder(task.model, task.generator)

        def objective(x: Tensor) -> Objective:
            shape = (self.samples, len(x), task.latent_dim)
            noise = torch.randn(shape, generator=task.generator, device=x.device)
            return self.objective(task.model, posterior, x, noise)

        yield from train_jointly(task, posterior, objective, self.steps, self.batch_size, self.learning_rate)


@dataclass(frozen=True)
class DoublyReparameterisedIWAE(IWAE):
    """The same with gradients of less variance for the encoder (Tucker et al. 2019, arXiv 1810.04152, IWAE-DReG)."""

    objective = staticmethod(doubly_reparameterised)

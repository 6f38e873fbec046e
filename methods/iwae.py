"""The importance weighted autoencoder (IWAE), with two estimators of its gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.common.amortised import AmortisedMethod
from methods.common.posteriors import Gaussian
from methods.common.training import Objective
from methods.contract.decoder import GenerativeModel
from methods.contract.method import require
from methods.contract.search_space import Choice, Range
from methods.vae import VAE


def importance_bound(model: GenerativeModel, posterior: Gaussian, x: Tensor, noise: Tensor) -> Tensor:
    """log (1/K) sum_k p(x, z_k) / q(z_k | x), z_k = mu + sigma * noise_k (Burda et al. 2016, eq. 8).

    Its mean over the noise is at most log p(x), increases with K, and is the ELBO for K = 1.

    Args:
        model: The generative model.
        posterior: q(z | x).
        x: Data, (n, D).
        noise: Standard normal draws, (K, n, L).

    Returns:
        The bound of each x in nats, (n,).
    """
    mean, log_scale = posterior.moments(x)
    z = mean + log_scale.exp() * noise
    return log_mean_exp(_log_weights(model, x, z, noise, log_scale))


def importance_weighted(model: GenerativeModel, posterior: Gaussian, x: Tensor, noise: Tensor) -> Objective:
    """The importance weighted bound with its own gradient (Burda et al. 2016, eq. 13). Arguments as for the bound."""
    return Objective.of(importance_bound(model, posterior, x, noise))


def doubly_reparameterised(model: GenerativeModel, posterior: Gaussian, x: Tensor, noise: Tensor) -> Objective:
    """The importance weighted bound with a surrogate whose gradient has less variance (Tucker et al. 2019, IWAE-DReG).

    The gradient for q is sum_k w_k^2 (d log w_k / d z_k) (d z_k / d phi), with normalised weights w_k. It has the same
    expectation as that of the bound. The gradient for the model is unchanged, sum_k w_k d log w_k / d theta. Arguments
    as for the bound.
    """
    mean, log_scale = posterior.moments(x)
    z = mean + log_scale.exp() * noise
    standardised = (z - mean.detach()) / log_scale.detach().exp()
    log_weights = _log_weights(model, x, z, standardised, log_scale.detach())
    weights = torch.softmax(log_weights.detach(), 0)
    if z.requires_grad:
        z.register_hook(lambda gradient: weights[..., None] * gradient)  # the second factor w_k; the sum has the first
    return Objective(log_mean_exp(log_weights.detach()), (weights * log_weights).sum(0))


def _log_weights(model: GenerativeModel, x: Tensor, z: Tensor, standardised: Tensor, log_scale: Tensor) -> Tensor:
    """log p(x, z) - log q(z | x), (K, n), from codes z and (z - mu) / sigma, both (K, n, L)."""
    return model.log_likelihood(x, z) + 0.5 * (standardised.square() - z.square()).sum(-1) + log_scale.sum(-1)


def log_mean_exp(values: Tensor) -> Tensor:
    """The log of the mean of exp over the first axis: (K, ...) -> (...)."""
    return torch.logsumexp(values, 0) - math.log(len(values))


@dataclass(frozen=True)
class IWAE(AmortisedMethod):
    """Joint training of decoder and encoder on the importance weighted bound (Burda et al. 2016, eq. 8).

    The fitted posterior is the Gaussian of the encoder. Its ELBO is looser than the bound that is trained.

    Args:
        samples: K, number of codes per training point and step.
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Learning rate.
        schedule: 'anytime', or 'cosine' for ablation.
        steepness: Factor on the initial weights and biases of the decoder's first layer.
        restarts: Number of starts, of which the best after a tenth of the steps goes on.
    """

    colour_group: ClassVar[str] = "iwae"
    search: ClassVar[Mapping[str, Range]] = {**VAE.search, "samples": Choice((5, 10, 20))}
    estimator = staticmethod(importance_weighted)

    samples: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, positive=("samples",))

    @property
    def draws(self) -> int:
        """K, draws of noise for each x."""
        return self.samples

    def objective(self, model: GenerativeModel, posterior: Gaussian, x: Tensor, noise: Tensor, step: int) -> Objective:  # noqa: ARG002
        """The importance weighted bound of K draws for each x."""
        return self.estimator(model, posterior, x, noise)


@dataclass(frozen=True)
class DoublyReparameterisedIWAE(IWAE):
    """IWAE with encoder gradients of less variance (Tucker et al. 2019, arXiv 1810.04152, IWAE-DReG).

    Args:
        samples: K, number of codes per training point and step.
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Learning rate.
        schedule: 'anytime', or 'cosine' for ablation.
        steepness: Factor on the initial weights and biases of the decoder's first layer.
        restarts: Number of starts, of which the best after a tenth of the steps goes on.
    """

    estimator = staticmethod(doubly_reparameterised)

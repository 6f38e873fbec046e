"""The VAE whose approximate posterior is a Gaussian with a full covariance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from methods.common.amortised import AmortisedMethod
from methods.common.posteriors import Amortised, FullGaussian, times
from methods.common.training import Objective
from methods.contract.architecture import ACTIVATION
from methods.contract.decoder import GenerativeModel, mlp, standard_normal_log_prob
from methods.contract.method import Task
from methods.contract.search_space import Range
from methods.vae import VAE


class EncodedFullGaussian(FullGaussian, Amortised):
    """A Gaussian with a full covariance. mu and T are outputs of a network: log T_jj and T_jk."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """mu, T and log det T: (n, D) -> (n, L), (n, L, L), (n,)."""
        outputs = self.outputs(x)
        latent_dim = (math.isqrt(9 + 8 * outputs.shape[-1]) - 3) // 2  # of L (L + 3) / 2 outputs
        mean, log_diagonal, below = outputs.tensor_split([latent_dim, 2 * latent_dim], -1)
        root = torch.diag_embed(log_diagonal.exp())
        root[..., *torch.tril_indices(latent_dim, latent_dim, -1)] = below
        return mean, root, log_diagonal.sum(-1)

    def log_prob(self, z: Tensor, x: Tensor) -> Tensor:
        """As for any such Gaussian, but solved code by code, as the values that are stored were rounded."""
        mean, root, log_det = self.moments(x)
        noise = torch.linalg.solve_triangular(root, (z.to(mean)[:, None] - mean)[..., None], upper=False)
        return standard_normal_log_prob(noise.squeeze(-1)) - log_det


def full_elbo(model: GenerativeModel, posterior: EncodedFullGaussian, x: Tensor, noise: Tensor) -> Tensor:
    """The ELBO with the KL in closed form, (|mu|^2 + |T|^2 - L) / 2 - log det T.

    Args:
        model: The generative model.
        posterior: q(z | x).
        x: Data, (n, D).
        noise: Standard normal draws, (n, L).

    Returns:
        The bound of each x in nats, (n,).
    """
    mean, root, log_det = posterior.moments(x)
    kl = (mean.square().sum(-1) + root.square().sum((-2, -1)) - mean.shape[-1]) / 2 - log_det
    return model.log_likelihood(x, mean + times(root, noise)) - kl


@dataclass(frozen=True)
class FullCovarianceVAE(AmortisedMethod):
    """Joint training on the ELBO of a Gaussian with a full covariance (Rezende, Mohamed & Wierstra 2014).

    Args:
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Learning rate.
        schedule: 'anytime', or 'cosine' for ablation.
        steepness: Factor on the initial weights and biases of the decoder's first layer.
        restarts: Number of starts, of which the best after a tenth of the steps goes on.
    """

    search: ClassVar[Mapping[str, Range]] = VAE.search

    def encoder(self, model: GenerativeModel, task: Task) -> EncodedFullGaussian:
        """The networks of mu and T at random initial weights."""
        latent_dim = model.latent_dim
        sizes = [model.data_dim, *model.hidden, latent_dim * (latent_dim + 3) // 2]
        return EncodedFullGaussian(mlp(sizes, ACTIVATION, task.generator), model.units)

    def objective(self, model: GenerativeModel, posterior: Any, x: Tensor, noise: Tensor, step: int) -> Objective:  # noqa: ARG002
        """The ELBO of one draw for each x."""
        return Objective.of(full_elbo(model, posterior, x, noise[0]))

"""Stochastic variational inference: a Gaussian for each training point, without an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.common.posteriors import LocalGaussian, PerDatumGaussian
from methods.common.training import Objective, elbo
from methods.common.without_encoder import WithoutEncoder, near_zero
from methods.contract.decoder import GenerativeModel
from methods.contract.method import Posterior, Task, require
from methods.contract.search_space import LogUniform, Range
from methods.vae import VAE


@dataclass(frozen=True)
class SVI(WithoutEncoder):
    """Joint training of the decoder and of q_n(z) = N(mu_n, diag sigma_n^2) for each training point, on the ELBO.

    Hoffman et al. 2013, section 2, with gradients for the local parameters too. For a new x, mu and sigma are found
    afresh, by gradient ascent on its ELBO from a mode of p(z | x).

    Args:
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Learning rate.
        schedule: 'anytime', or 'cosine' for ablation.
        steepness: Factor on the initial weights and biases of the decoder's first layer.
        restarts: Number of starts, of which the best after a tenth of the steps goes on.
        code_rate: Learning rate of mu and log sigma, in units of that of the decoder.
        scale: Every sigma at the start. A narrow q lets the codes part before the prior holds them.
    """

    search: ClassVar[Mapping[str, Range]] = {
        **VAE.search,
        "code_rate": LogUniform(1.0, 10.0),
        "scale": LogUniform(0.05, 1.0),
    }

    code_rate: float = 5.0
    scale: float = 0.135

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, positive=("code_rate", "scale"))

    @property
    def row_rate(self) -> float:
        """Learning rate of the rows, in units of that of the decoder."""
        return self.code_rate

    def start(self, task: Task) -> Tensor:
        """mu near 0 and log sigma, (N, 2 L)."""
        mean = near_zero(task, task.latent_dim)
        return torch.cat([mean, torch.full_like(mean, self.scale).log()], 1)

    def posterior(self, model: GenerativeModel, encoder: object) -> Posterior:  # noqa: ARG002
        """The best Gaussian for each x, given the present decoder."""
        return PerDatumGaussian(model, model.latent_dim)

    def objective(self, model: GenerativeModel, posterior: Tensor, x: Tensor, noise: Tensor, step: int) -> Objective:  # noqa: ARG002
        """The ELBO of one draw for each x."""
        return Objective.of(elbo(model, LocalGaussian(*posterior.chunk(2, -1)), x, noise[0]))

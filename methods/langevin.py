"""Short-run Langevin dynamics as the inference of each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from methods.common.training import Objective
from methods.common.without_encoder import WithoutEncoder, langevin_step, log_joint
from methods.contract.decoder import GenerativeModel
from methods.contract.method import Task, require
from methods.contract.search_space import Choice, LogUniform, Range
from methods.vae import VAE


@dataclass(frozen=True)
class Langevin(WithoutEncoder):
    """Ascent of log p(x, z) at codes after K Langevin steps from the prior (Nijkamp et al. 2020, arXiv 1912.01909).

        z_0 ~ N(0, I),  z_k+1 = z_k + h grad log p(x, z_k) + sqrt(2 h) e_k,  theta <- theta + Adam(grad log p(x, z_K))

    Nothing is kept of a training point. The step is h = rate s2 in standard units, as for `particles`. For a new x,
    q(z | x) is the posterior of the decoder, since the density of a chain's end is not known.

    Args:
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Learning rate.
        schedule: 'anytime', or 'cosine' for ablation.
        steepness: Factor on the initial weights and biases of the decoder's first layer.
        restarts: Number of starts, of which the best after a tenth of the steps goes on.
        chain: K, number of Langevin steps.
        rate: Size of a Langevin step, in units of the noise variance in standard units.
    """

    per_datum: ClassVar[bool] = False
    search: ClassVar[Mapping[str, Range]] = {
        **VAE.search,
        "chain": Choice((10, 20, 40)),
        "rate": LogUniform(0.003, 0.3),
    }

    chain: int = 20
    rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, positive=("chain", "rate"))

    @property
    def draws(self) -> int:
        """Draws of noise for each x: the start and one for each Langevin step."""
        return self.chain + 1

    def encoder(self, model: GenerativeModel, task: Task) -> nn.Module:  # noqa: ARG002
        """Nothing."""
        return nn.Module()

    def posterior_of_batch(self, model: GenerativeModel, encoder: Any, index: Tensor) -> None:
        """Nothing."""

    def objective(self, model: GenerativeModel, posterior: None, x: Tensor, noise: Tensor, step: int) -> Objective:  # noqa: ARG002
        """log p(x, z) at the end of a chain for each x."""
        z, *shocks = noise
        return Objective.of(log_joint(model, x, short_run(model, x, z, shocks, langevin_step(model, self.rate))))


def short_run(model: GenerativeModel, x: Tensor, z: Tensor, shocks: list[Tensor], h: Tensor) -> Tensor:
    """The ends of Langevin chains on log p(x, z).

    Args:
        model: The generative model.
        x: Data, (n, D).
        z: Where the chains start, (n, L).
        shocks: Standard normal draws of each step, (n, L).
        h: The size of a step.
    """
    for shock in shocks:
        with torch.enable_grad():
            here = z.detach().requires_grad_()
            (uphill,) = torch.autograd.grad(log_joint(model, x, here).sum(), here)
        z = z + h * uphill + (2 * h).sqrt() * shock
    return z

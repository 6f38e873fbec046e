"""Particle gradient descent: a cloud of codes for each training point, moved by Langevin steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from methods.common.optimisers import Optimiser, Plain
from methods.common.training import Objective
from methods.common.without_encoder import WithoutEncoder, langevin_step, log_joint, near_zero
from methods.contract.decoder import GenerativeModel
from methods.contract.method import Task, require
from methods.contract.search_space import Choice, LogUniform, Range
from methods.vae import VAE


@dataclass(frozen=True)
class Particles(WithoutEncoder):
    """Particle gradient descent (Kuntz, Lim & Johansen 2023, arXiv 2204.12965, algorithm 1).

        z_m <- z_m + h grad log p(x, z_m) + sqrt(2 h) e_m,    theta <- theta + Adam(mean_m grad log p(x, z_m))

    for M particles of each training point, where both gradients are at the particles before the step. The step is h =
    rate s2 in standard units, as the precision of p(z | x) is in proportion to 1 / s2. For a new x, q(z | x) is the
    posterior of the decoder.

    Args:
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Learning rate of the decoder.
        schedule: 'anytime', or 'cosine' for ablation.
        steepness: Factor on the initial weights and biases of the decoder's first layer.
        restarts: Number of starts, of which the best after a tenth of the steps goes on.
        particles: M, number of codes for each training point.
        rate: Size of a Langevin step, in units of the noise variance in standard units.
    """

    encoder_optimiser: ClassVar[type[Optimiser] | None] = Plain
    search: ClassVar[Mapping[str, Range]] = {
        **VAE.search,
        "particles": Choice((3, 10, 30)),
        "rate": LogUniform(0.003, 0.3),
    }

    particles: int = 10
    rate: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, positive=("particles", "rate"))

    @property
    def draws(self) -> int:
        """M, draws of noise for each x."""
        return self.particles

    def start(self, task: Task) -> Tensor:
        """Particles near 0, (N, M L)."""
        return near_zero(task, self.particles * task.latent_dim)

    def objective(self, model: GenerativeModel, posterior: Tensor, x: Tensor, noise: Tensor, step: int) -> Objective:  # noqa: ARG002
        """The mean of log p(x, z) over the particles. The gradient of particles is replaced by their Langevin step."""
        z = posterior.unflatten(-1, (self.particles, -1)).movedim(-2, 0)
        if z.requires_grad:
            h, shares = langevin_step(model, self.rate), self.particles * x.shape[-2]
            z.register_hook(lambda downhill: shares * h * downhill - (2 * h).sqrt() * noise)
        return Objective.of(log_joint(model, x, z).mean(0))

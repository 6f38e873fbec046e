"""The variational autoencoder (VAE)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.common.posteriors import build_encoder
from methods.common.training import Objective, elbo, train_jointly
from methods.contract.method import Fitted, Method, Task, require
from methods.contract.search_space import Choice, LogUniform, Range


@dataclass(frozen=True)
class VAE(Method):
    """Joint training of decoder and encoder on the ELBO (Kingma & Welling 2014, algorithm 1).

    Args:
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Initial learning rate of Adam. It falls to zero along half a cosine.
    """

    colour_group: ClassVar[str] = "vae"

    steps: int = 6000
    batch_size: int = 100
    learning_rate: float = 1e-2

    search: ClassVar[Mapping[str, Range]] = {
        "learning_rate": LogUniform(1e-3, 3e-2),
        "batch_size": Choice((25, 50, 100, 250)),
    }

    def __post_init__(self) -> None:
        require(self, positive=("steps", "batch_size", "learning_rate"))

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yield after every step."""
        posterior = build_encoder(task.model, task.generator)

        def objective(x: Tensor) -> Objective:
            noise = torch.randn(len(x), task.latent_dim, generator=task.generator, device=x.device)
            return Objective.of(elbo(task.model, posterior, x, noise))

        yield from train_jointly(task, posterior, objective, self.steps, self.batch_size, self.learning_rate)

"""The joint VAE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from methods.amortised import adam, batches, cosine, descend, elbo
from methods.base import Fitted, Task
from methods.posteriors import build_encoder


@dataclass(frozen=True)
class VAE:
    """Joint training of decoder and encoder on the ELBO (Kingma & Welling 2014, algorithm 1).

    steps: gradient steps. batch_size: data per step. learning_rate: Adam's, falling to zero along a cosine.
    """

    steps: int = 6000
    batch_size: int = 100
    learning_rate: float = 1e-2

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yields after every step."""
        model, posterior = task.model, build_encoder(task.model, task.generator)
        task.ledger.watch(encoder=posterior.network)
        optimiser = adam([*model.parameters(), *posterior.parameters()], self.learning_rate)

        def step(index: Tensor) -> None:
            x = task.train[index]
            noise = torch.randn(len(x), task.latent_dim, generator=task.generator, device=x.device)
            descend(lambda: -elbo(model, posterior, x, noise).mean(), optimiser)

        fitted = Fitted(model, posterior)
        indices = batches(len(task.train), self.batch_size, task.generator, task.ledger)
        for i, index in enumerate(islice(indices, self.steps)):
            optimiser.param_groups[0]["lr"] = self.learning_rate * cosine(i, self.steps)
            task.ledger.run("joint step", step, index)
            yield fitted

"""What the methods with an amortised posterior share: the bound, batches and steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from methods.common.posteriors import Amortised, Gaussian
from methods.contract.decoder import GaussianModel
from methods.contract.method import Fitted, Ledger, Task


@dataclass(frozen=True)
class Objective:
    """What a gradient step is to raise, for each x of a batch, (n,) in nats.

    bound: the lower bound on log p(x), which is what is told and compared. surrogate: what is differentiated; its
    gradient is that of the bound in expectation, its value need not mean anything.
    """

    bound: Tensor
    surrogate: Tensor

    @staticmethod
    def of(bound: Tensor) -> Objective:
        """A bound that is differentiated itself."""
        return Objective(bound.detach(), bound)


def elbo(model: GaussianModel, posterior: Gaussian, x: Tensor, noise: Tensor) -> Tensor:
    """The evidence lower bound of each x in nats, with the KL to the prior in closed form: (n, D), (n, L) -> (n,).

    One reparameterised draw z = mu + sigma * noise per x (Kingma & Welling 2014, eq. 10).
    """
    mean, log_scale = posterior.moments(x)
    scale = log_scale.exp()
    kl = 0.5 * (mean.square() + scale.square() - 1).sum(-1) - log_scale.sum(-1)
    return model.log_likelihood(x, mean + scale * noise) - kl


def batches(n: int, size: int, generator: torch.Generator, ledger: Ledger) -> Iterator[Tensor]:
    """Indices of mini-batches, for ever: each pass over the data in a fresh order, all batches of one size."""
    size = min(size, n)

    def shuffle() -> tuple[Tensor, ...]:
        order = torch.randperm(n, generator=generator, device=generator.device)
        return order[: n - n % size].split(size)

    while True:
        yield from ledger.run("shuffle", shuffle)


def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Adam (Kingma & Ba 2015) on the parameters that are to be learned, as one fused kernel."""
    return torch.optim.Adam([p for p in parameters if p.requires_grad], lr=learning_rate, fused=True)


def cosine(step: int, steps: int) -> float:
    """The factor of a learning rate that falls from 1 to 0 over `steps` along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))


def ascend(objective: Callable[[], Objective], *optimisers: torch.optim.Optimizer) -> Tensor:
    """One gradient step of every optimiser up the mean of the surrogate; returns the mean bound before it."""
    for optimiser in optimisers:
        optimiser.zero_grad()
    found = objective()
    (-found.surrogate.mean()).backward()
    for optimiser in optimisers:
        optimiser.step()
    return found.bound.mean()


def train_jointly(
    task: Task,
    posterior: Amortised,
    objective: Callable[[Tensor], Objective],
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> Iterator[Fitted]:
    """Train the model of `task` and its posterior at once on the objective of a batch (n, D).

    Yields after every one of `steps` gradient steps. learning_rate: Adam's, falling to zero along a cosine.
    """
    task.ledger.watch(encoder=posterior.network)
    optimiser = adam([*task.model.parameters(), *posterior.parameters()], learning_rate)

    def step(index: Tensor) -> None:
        x = task.train[index]
        ascend(lambda: objective(x), optimiser)

    fitted = Fitted(task.model, posterior)
    indices = batches(len(task.train), batch_size, task.generator, task.ledger)
    for i, index in enumerate(islice(indices, steps)):
        optimiser.param_groups[0]["lr"] = learning_rate * cosine(i, steps)
        task.ledger.run("joint step", step, index)
        yield fitted

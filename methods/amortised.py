"""What the methods with an amortised posterior share: the bound, batches and steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor, nn

from methods.base import Fitted, Ledger, Task
from methods.model import GaussianModel
from methods.posteriors import DiagonalGaussian


def elbo(model: GaussianModel, posterior: DiagonalGaussian, x: Tensor, noise: Tensor) -> Tensor:
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


def descend(loss: Callable[[], Tensor], *optimisers: torch.optim.Optimizer) -> Tensor:
    """One gradient step of every optimiser on `loss`; returns the loss before it."""
    for optimiser in optimisers:
        optimiser.zero_grad()
    value = loss()
    value.backward()
    for optimiser in optimisers:
        optimiser.step()
    return value.detach()


def train_jointly(
    task: Task,
    posterior: DiagonalGaussian,
    loss: Callable[[Tensor], Tensor],
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> Iterator[Fitted]:
    """Train the model of `task` and its posterior at once on the loss of a batch, (n, D) -> ().

    Yields after every one of `steps` gradient steps. learning_rate: Adam's, falling to zero along a cosine.
    """
    task.ledger.watch(encoder=posterior.network)
    optimiser = adam([*task.model.parameters(), *posterior.parameters()], learning_rate)

    def step(index: Tensor) -> None:
        x = task.train[index]
        descend(lambda: loss(x), optimiser)

    fitted = Fitted(task.model, posterior)
    indices = batches(len(task.train), batch_size, task.generator, task.ledger)
    for i, index in enumerate(islice(indices, steps)):
        optimiser.param_groups[0]["lr"] = learning_rate * cosine(i, steps)
        task.ledger.run("joint step", step, index)
        yield fitted

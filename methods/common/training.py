"""What gradient steps raise: the ELBO, objectives, batches and one step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.common.posteriors import Gaussian
from methods.contract.decoder import GenerativeModel
from methods.contract.method import Ledger


@dataclass(frozen=True)
class Objective:
    """What a gradient step raises, for each x of a batch, (n,).

    Args:
        bound: The lower bound on log p(x) in nats, which is compared and reported.
        surrogate: What is differentiated. Its gradient has the expectation that the step needs; its value may be
            meaningless.
    """

    bound: Tensor
    surrogate: Tensor

    @staticmethod
    def of(bound: Tensor) -> Objective:
        """The objective whose surrogate is the bound itself."""
        return Objective(bound.detach(), bound)


def elbo(model: GenerativeModel, posterior: Gaussian, x: Tensor, noise: Tensor) -> Tensor:
    """The evidence lower bound with the KL to the prior in closed form (Kingma & Welling 2014, eq. 10).

    Args:
        model: The generative model.
        posterior: q(z | x).
        x: Data, (n, D).
        noise: Standard normal draws, (n, L), one reparameterised draw z = mu + sigma * noise for each x.

    Returns:
        The bound of each x in nats, (n,).
    """
    mean, log_scale = posterior.moments(x)
    scale = log_scale.exp()
    twice = torch.sub(mean.square() + scale.square(), log_scale, alpha=2).sum(-1)  # the KL, plus L / 2, times 2
    likelihood = model.log_likelihood(x, mean + scale * noise)
    return torch.sub(likelihood, twice, alpha=0.5) + 0.5 * mean.shape[-1]


def batches(n: int, size: int, generator: torch.Generator, ledger: Ledger) -> Iterator[Tensor]:
    """Indices of mini-batches without end. Each pass over the data has a new order.

    Args:
        n: Number of data.
        size: Batch size; n if that is less. What remains at the end of a pass is left out.
        generator: The source of the orders.
        ledger: Where the work is accounted for.
    """
    size = min(size, n)

    def shuffle() -> tuple[Tensor, ...]:
        order = torch.randperm(n, generator=generator, device=generator.device)
        return order[: n - n % size].split(size)

    while True:
        yield from ledger.run("shuffle", shuffle)


def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Adam (Kingma & Ba 2015) on the parameters that require a gradient, as one fused kernel."""
    return torch.optim.Adam([p for p in parameters if p.requires_grad], lr=learning_rate, fused=True)


def ascend(objective: Callable[[], Objective], *optimisers: torch.optim.Optimizer) -> Tensor:
    """Take one step of every optimiser up the mean of the surrogate; return the mean bound before the step."""
    for optimiser in optimisers:
        optimiser.zero_grad()
    found = objective()
    (-found.surrogate.mean()).backward()
    for optimiser in optimisers:
        optimiser.step()
    return found.bound.mean()

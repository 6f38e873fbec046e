"""The VAE with aggressive training of the encoder (lagging inference networks)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.common.posteriors import DiagonalGaussian, build_encoder
from methods.common.training import Objective, adam, ascend, batches, cosine, elbo
from methods.contract.method import Fitted, Method, Task, require
from methods.contract.search_space import Choice, LogUniform, Range


@dataclass(frozen=True)
class Iterative(Method):
    """Encoder steps to convergence before each decoder step (He et al. 2019, arXiv 1901.05534, algorithm 1).

    Before a decoder step, encoder steps on fresh batches continue until the mean bound over a window of them is below
    that of the window before, or until the limit. After each pass over the training points the mutual information
    I_q(x, z) is estimated on validation points. When it falls for the first time, training becomes joint and stays so.

    Unlike in the authors' code, gradients are not clipped, and the decoder step takes a fresh batch as in algorithm 1.

    Args:
        steps: Number of gradient steps, encoder steps included.
        batch_size: Training points per step.
        learning_rate: Initial learning rate of Adam, one for the decoder and one for the encoder. It falls to zero
            along half a cosine.
        window: Number of encoder steps whose mean bounds are compared.
        most_inner: Most encoder steps before a decoder step.
    """

    steps: int = 6000
    batch_size: int = 100
    learning_rate: float = 1e-2
    window: int = 15
    most_inner: int = 100

    search: ClassVar[Mapping[str, Range]] = {
        "learning_rate": LogUniform(1e-3, 3e-2),
        "batch_size": Choice((25, 50, 100, 250)),
        "window": Choice((10, 15, 30)),
    }

    def __post_init__(self) -> None:
        require(self, positive=("steps", "batch_size", "learning_rate", "window", "most_inner"))

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yield after every gradient step."""
        run = _Run(self, task)
        yield from run.aggressive()
        yield from run.joint()


class _Run:
    """The state of one training run: networks, their optimisers, batches and the steps taken."""

    def __init__(self, method: Iterative, task: Task):
        self.method, self.task = method, task
        self.posterior = build_encoder(task.model, task.generator)
        task.ledger.watch(encoder=self.posterior.network)
        self.decoder_optimiser = adam(task.model.parameters(), method.learning_rate)
        self.encoder_optimiser = adam(self.posterior.parameters(), method.learning_rate)
        self.batches = batches(len(task.train), method.batch_size, task.generator, task.ledger)
        self.steps_per_pass = max(1, len(task.train) // method.batch_size)
        self.steps = 0
        self.fitted = Fitted(task.model, self.posterior)

    @property
    def finished(self) -> bool:
        return self.steps >= self.method.steps

    def aggressive(self) -> Iterator[Fitted]:
        """Encoder steps and a decoder step in turn, as long as the mutual information rises."""
        before = -math.inf
        while not self.finished:
            for _ in range(self.steps_per_pass):
                yield from self.inner_loop()
                if self.finished:
                    return
                self.step("decoder step", self.decoder_optimiser, held=self.posterior)
                yield self.fitted
            with torch.no_grad():
                known = self.posterior, self.task.validation, self.task.generator
                now = self.task.ledger.run("mutual information", mutual_information, *known)
            if now < before:
                return
            before = now

    def inner_loop(self) -> Iterator[Fitted]:
        """Encoder steps until the mean bound of a window is below that of the window before."""
        window: list[Tensor] = []
        before = -math.inf
        for _ in range(self.method.most_inner):
            if self.finished:
                return
            window.append(self.step("encoder step", self.encoder_optimiser, held=self.task.model))
            yield self.fitted
            if len(window) == self.method.window:
                now = self.task.ledger.run("window", lambda bounds: float(torch.stack(bounds).mean()), window)
                if now < before:
                    return
                window, before = [], now

    def joint(self) -> Iterator[Fitted]:
        """Steps of both networks at once, until the last step."""
        while not self.finished:
            self.step("joint step", self.decoder_optimiser, self.encoder_optimiser)
            yield self.fitted

    def step(self, name: str, *optimisers: torch.optim.Optimizer, held: nn.Module | None = None) -> Tensor:
        """One gradient step on a fresh batch, with the parameters of `held` constant; returns its mean bound."""
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = self.method.learning_rate * cosine(self.steps, self.method.steps)
        constant = [p for p in held.parameters() if p.requires_grad] if held is not None else []
        for parameter in constant:
            parameter.requires_grad_(False)
        bound = self.task.ledger.run(name, self.ascend, next(self.batches), *optimisers)
        for parameter in constant:
            parameter.requires_grad_(True)
        self.steps += 1
        return bound

    def ascend(self, index: Tensor, *optimisers: torch.optim.Optimizer) -> Tensor:
        x = self.task.train[index]
        noise = torch.randn(len(x), self.task.latent_dim, generator=self.task.generator, device=x.device)
        return ascend(lambda: Objective.of(elbo(self.task.model, self.posterior, x, noise)), *optimisers)


def mutual_information(posterior: DiagonalGaussian, x: Tensor, generator: torch.Generator) -> float:
    """I_q(x, z) = E log q(z | x) - E log q(z) in nats (He et al. 2019, eq. 6; Hoffman & Johnson 2016).

    Args:
        posterior: q(z | x). q(z) is its mean over the given x.
        x: Data, (n, D).
        generator: The source of one draw of z for each x.
    """
    mean, log_scale = posterior.moments(x)
    noise = torch.randn(mean.shape, generator=generator, device=mean.device)
    z = mean + log_scale.exp() * noise
    each = torch.distributions.Normal(mean, log_scale.exp()).log_prob(z[:, None]).sum(-1)
    aggregate = torch.logsumexp(each, 1) - math.log(len(x))
    return float((each.diagonal() - aggregate).mean())

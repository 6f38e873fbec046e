"""The VAE with aggressive training of the encoder (lagging inference networks)."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.common.amortised import Phases
from methods.common.posteriors import DiagonalGaussian, information
from methods.contract.method import Fitted, Task, require
from methods.contract.search_space import Choice, Range
from methods.vae import VAE


@dataclass(frozen=True)
class Iterative(VAE):
    """Encoder steps to convergence before each decoder step (He et al. 2019, arXiv 1901.05534, algorithm 1).

    Before a decoder step, encoder steps on fresh batches continue until the mean bound over a window of them is below
    that of the window before, or until the limit. After each pass over the training points the mutual information
    I_q(x, z) is estimated on validation points. When it falls for the first time, training becomes joint and stays so.

    Unlike in the authors' code, gradients are not clipped, and the decoder step takes a fresh batch as in algorithm 1.
    Decoder and encoder have optimisers of their own.

    Args:
        steps: Number of gradient steps, encoder steps included.
        batch_size: Training points per step.
        learning_rate: Learning rate of decoder and encoder.
        schedule: 'anytime', or 'cosine' for ablation.
        steepness: Factor on the initial weights and biases of the decoder's first layer.
        restarts: Number of starts, of which the best after a tenth of the steps goes on.
        window: Number of encoder steps whose mean bounds are compared.
        most_inner: Most encoder steps before a decoder step.
        patience: Number of passes in a row whose mutual information must be below the best so far before training
            becomes joint.
    """

    colour_group: ClassVar[str] = ""
    phased: ClassVar[bool] = True
    search: ClassVar[Mapping[str, Range]] = {**VAE.search, "window": Choice((10, 15, 30))}

    window: int = 15
    most_inner: int = 100
    patience: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, positive=("window", "most_inner", "patience"))

    def phases(self, fitted: Fitted, task: Task) -> Phases:
        """Encoder steps and a decoder step in turn until the mutual information has fallen; then joint steps."""
        best, below = -math.inf, 0
        while below < self.patience:
            for _ in range(max(1, len(task.train) // self.batch_size)):
                yield from self._inner_loop(task)
                yield "decoder"
            with torch.no_grad():
                known = fitted.posterior, task.validation, task.generator
                now = task.ledger.run("mutual information", mutual_information, *known)
            best, below = max(best, now), below + 1 if now < best else 0
        while True:
            yield "joint"

    def _inner_loop(self, task: Task) -> Generator[str, Tensor, None]:
        """Encoder steps until the mean bound of a window is below that of the window before."""
        window: list[Tensor] = []
        before = -math.inf
        for _ in range(self.most_inner):
            window.append((yield "encoder"))
            if len(window) == self.window:
                now = task.ledger.run("window", lambda bounds: float(torch.stack(bounds).mean()), window)
                if now < before:
                    return
                window, before = [], now


def mutual_information(posterior: DiagonalGaussian, x: Tensor, generator: torch.Generator) -> float:
    """I_q(x, z) = E log q(z | x) - E log q(z) in nats (He et al. 2019, eq. 6).

    Args:
        posterior: q(z | x).
        x: Data, (n, D).
        generator: The source of one draw of z for each x.
    """
    z, _ = posterior.sample(x, 1, generator)
    return float(information(posterior.log_prob(z[0], x)).mean())

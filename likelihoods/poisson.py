"""x_d | z ~ Poisson: the outputs are log rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from likelihoods.base import Likelihood, first


@dataclass(frozen=True)
class Poisson(Likelihood):
    """B(o) = exp o, the mean, and 2 sqrt(mean) has the Fisher metric."""

    name: ClassVar[str] = "poisson"

    def log_partition(self, outputs: Tensor) -> Tensor:
        """sum_d exp o_d: (..., D) -> (...)."""
        return outputs.exp().sum(-1)

    def base(self, x: Tensor) -> Tensor:
        """-sum_d log x_d!: (..., D) -> (...)."""
        return -torch.lgamma(x + 1).sum(-1)

    def conjugate(self, x: Tensor) -> Tensor:
        """sum_d x_d log x_d - x_d: (..., D) -> (...)."""
        return (torch.xlogy(x, x) - x).sum(-1)

    def mean(self, outputs: Tensor) -> Tensor:
        """The rates: (..., D) -> (..., D)."""
        return outputs.exp()

    def outputs(self, mean: Tensor) -> Tensor:
        """The log rates: (..., D) -> (..., D)."""
        return mean.log()

    def interior(self, mean: Tensor, count: Tensor | float) -> Tensor:
        """mean + 1 / (2 n): (..., D) -> (..., D)."""
        return mean + 0.5 / count

    def embed(self, outputs: Tensor) -> Tensor:
        """2 sqrt(rate): (..., D) -> (..., D)."""
        return 2 * torch.exp(outputs / 2)

    def most(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """x o at the upper and -exp(o) at the lower of two outputs: (b, D) each -> (b, D), (b,)."""
        return high, -low.exp().sum(-1)

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Counts, (..., D)."""
        return torch.poisson(self.mean(outputs).to(generator.device), generator=generator).to(outputs.device)

    def refuse(self, x: Tensor) -> str | None:
        """Names the first value that is no whole number from 0 on."""
        return first(x, (x < 0) | (x != x.round()), "a whole number from 0 on")

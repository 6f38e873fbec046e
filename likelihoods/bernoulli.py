"""x_d | z ~ Bernoulli: the outputs are logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from likelihoods.base import Likelihood, first


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """B(o) = log(1 + exp o); the mean is the logistic function of o, and 2 arcsin sqrt(mean) has the Fisher metric."""

    name: ClassVar[str] = "bernoulli"

    def log_partition(self, outputs: Tensor) -> Tensor:
        """sum_d log(1 + exp o_d): (..., D) -> (...)."""
        return softplus(outputs).sum(-1)

    def base(self, x: Tensor) -> Tensor:
        """Zero: (..., D) -> (...)."""
        return torch.zeros_like(x[..., 0])

    def conjugate(self, x: Tensor) -> Tensor:
        """The negative entropy of x, which is 0 for 0 and 1: (..., D) -> (...)."""
        return (torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x)).sum(-1)

    def mean(self, outputs: Tensor) -> Tensor:
        """The probabilities of 1: (..., D) -> (..., D)."""
        return torch.sigmoid(outputs)

    def outputs(self, mean: Tensor) -> Tensor:
        """The logits of probabilities: (..., D) -> (..., D)."""
        return torch.logit(mean)

    def interior(self, mean: Tensor, count: Tensor | float) -> Tensor:
        """(n mean + 1/2) / (n + 1): (..., D) -> (..., D)."""
        return (count * mean + 0.5) / (count + 1)

    def embed(self, outputs: Tensor) -> Tensor:
        """2 arcsin sqrt(mean), from 0 to pi: (..., D) -> (..., D)."""
        return 2 * torch.exp(outputs / 2).atan()

    def most(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The largest log-probabilities of 1 and of 0 between two outputs: (b, D) each -> (b, D), (b,)."""
        of_one, of_zero = -softplus(-high), -softplus(low)
        return of_one - of_zero, of_zero.sum(-1)

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """Zeros and ones, (..., D)."""
        uniform = torch.rand(outputs.shape, generator=generator, device=generator.device, dtype=torch.float64)
        return (uniform.to(outputs.device) < self.mean(outputs)).to(outputs)

    def refuse(self, x: Tensor) -> str | None:
        """Names the first value that is neither 0 nor 1."""
        return first(x, (x != 0) & (x != 1), "0 or 1")

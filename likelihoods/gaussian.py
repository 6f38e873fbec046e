"""x | z ~ N(f(z), s2 I_D): the outputs are means in data units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from likelihoods.base import Likelihood


def gaussian_log_prob(residual: Tensor, log_noise: Tensor) -> Tensor:
    """log N(residual; 0, exp(log_noise) I) in nats: (..., D) -> (...)."""
    constant = -residual.shape[-1] / 2 * (math.log(2 * math.pi) + log_noise)
    return torch.addcmul(constant, residual.square().sum(-1), (-log_noise).exp(), value=-0.5)


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """B(o) = o^2 / 2, phi = s2, so that the outputs are means and the Fisher metric is that of the data.

    Args:
        variance: s2, in squared data units.
    """

    name: ClassVar[str] = "gaussian"

    variance: float | Tensor

    @property
    def dispersion(self) -> float | Tensor:  # type: ignore[override]
        """s2."""
        return self.variance

    def log_partition(self, outputs: Tensor) -> Tensor:
        """|o|^2 / (2 s2): (..., D) -> (...)."""
        return outputs.square().sum(-1) / (2 * self.variance)

    def base(self, x: Tensor) -> Tensor:
        """-|x|^2 / (2 s2): (..., D) -> (...)."""
        return x.square().sum(-1) / (-2 * self.variance)

    def constant(self, data_dim: int) -> float:
        """-D / 2 log(2 pi s2)."""
        return -data_dim / 2 * math.log(2 * math.pi * self.variance)

    def conjugate(self, x: Tensor) -> Tensor:
        """|x|^2 / (2 s2): (..., D) -> (...)."""
        return x.square().sum(-1) / (2 * self.variance)

    def mean(self, outputs: Tensor) -> Tensor:
        """The outputs themselves."""
        return outputs

    def outputs(self, mean: Tensor) -> Tensor:
        """The means themselves."""
        return mean

    def interior(self, mean: Tensor, count: Tensor | float) -> Tensor:  # noqa: ARG002
        """The mean itself."""
        return mean

    def embed(self, outputs: Tensor) -> Tensor:
        """The outputs themselves."""
        return outputs

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """The means with Gaussian noise, (..., D), float64 noise."""
        noise = torch.randn(outputs.shape, generator=generator, device=generator.device, dtype=torch.float64)
        return outputs + math.sqrt(self.variance) * noise.to(outputs.device)

    def refuse(self, x: Tensor) -> str | None:  # noqa: ARG002
        """None: all finite data can be Gaussian."""
        return None

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        """log N(x; o, s2 I) in nats, from the residual, where rounding is least: (..., D), (..., D) -> (...)."""
        return gaussian_log_prob(x - outputs, torch.tensor(math.log(self.variance), dtype=torch.float64))

    def deviances(self, x: Tensor, outputs: Tensor) -> Tensor:
        """|x - o|^2 for every x and every o: (n, D), (m, D) -> (n, m)."""
        return torch.cdist(x, outputs).square()

    def deviance(self, x: Tensor, outputs: Tensor) -> Tensor:
        """|x - o|^2, in squared data units: (..., D), (..., D) -> (...)."""
        return (outputs - x).square().sum(-1)

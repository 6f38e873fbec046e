"""x | z ~ N(mu(z), diag v): the outputs are mu_d / v_d, the natural parameters where v is given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.likelihoods.base import Likelihood


@dataclass(frozen=True, eq=False)
class PerCoordinateGaussian(Likelihood):
    """B(o) = sum_d v_d o_d^2 / 2, phi = 1, so that E x = v o. In units of the noise, x / sqrt(v), noise is N(0, I).

    Args:
        variances: v, (D,), in squared data units.
    """

    name: ClassVar[str] = "gaussian with noise per coordinate"

    variances: Tensor

    @property
    def scale(self) -> Tensor:  # type: ignore[override]
        """The standard deviation of the noise of each coordinate, (D,), in data units."""
        return self.variances.sqrt()

    def log_partition(self, outputs: Tensor) -> Tensor:
        """sum_d v_d o_d^2 / 2: (..., D) -> (...)."""
        return self.embed(outputs).square().sum(-1) / 2

    def base(self, x: Tensor) -> Tensor:
        """-sum_d x_d^2 / (2 v_d): (..., D) -> (...)."""
        return -self.conjugate(x)

    def constant(self, data_dim: int) -> float:
        """-sum_d log(2 pi v_d) / 2."""
        return -0.5 * (data_dim * math.log(2 * math.pi) + float(self.variances.double().log().sum()))

    def conjugate(self, x: Tensor) -> Tensor:
        """sum_d x_d^2 / (2 v_d): (..., D) -> (...)."""
        return (x / self.scale).square().sum(-1) / 2

    def mean(self, outputs: Tensor) -> Tensor:
        """v o: (..., D) -> (..., D)."""
        return self.variances * outputs

    def outputs(self, mean: Tensor) -> Tensor:
        """mean / v: (..., D) -> (..., D)."""
        return mean / self.variances

    def interior(self, mean: Tensor, count: Tensor | float) -> Tensor:  # noqa: ARG002
        """The mean itself."""
        return mean

    def embed(self, outputs: Tensor) -> Tensor:
        """The mean in units of the noise, sqrt(v) o: (..., D) -> (..., D)."""
        return self.scale * outputs

    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """The means with Gaussian noise, (..., D), float64 noise."""
        noise = torch.randn(outputs.shape, generator=generator, device=generator.device, dtype=torch.float64)
        return self.mean(outputs) + self.scale * noise.to(outputs.device)

    def refuse(self, x: Tensor) -> str | None:  # noqa: ARG002
        """None: all finite data can be Gaussian."""
        return None

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        """log N(x; v o, diag v) in nats, from the residual, where rounding is least: (..., D), (..., D) -> (...)."""
        return -self.deviance(x, outputs) / 2 + self.constant(x.shape[-1])

    def deviances(self, x: Tensor, outputs: Tensor) -> Tensor:
        """|x / sqrt(v) - sqrt(v) o|^2 for every x and every o: (n, D), (m, D) -> (n, m)."""
        return torch.cdist(x / self.scale, self.embed(outputs)).square()

    def deviance(self, x: Tensor, outputs: Tensor) -> Tensor:
        """|x / sqrt(v) - sqrt(v) o|^2, in squared units of the noise: (..., D), (..., D) -> (...)."""
        return (self.embed(outputs) - x / self.scale).square().sum(-1)

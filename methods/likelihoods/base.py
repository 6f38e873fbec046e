"""What a likelihood is: an exponential family whose natural parameters are outputs of the decoder."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor


def first(x: Tensor, wrong: Tensor, expected: str) -> str | None:
    """In one line, the first value of data (n, D) that is wrong, counted from 1; None if there is none."""
    if not wrong.any():
        return None
    row, column = wrong.nonzero()[0].tolist()
    return f"row {row + 1}, column {column + 1} has {float(x[row, column]):g}; expected {expected}"


class Likelihood(ABC):
    """p(x | o) = prod_d exp((x_d o_d - B(o_d)) / phi) times what x alone decides, with o the decoder's outputs at z.

    The link is canonical: E x = B'(o), Var x = phi B''(o) (McCullagh & Nelder 1989, section 2.2.2). `embed` maps
    outputs so that distances are those of the Fisher metric: noise has the variance phi everywhere.

    Attributes:
        name: The name of the family.
        dispersion: phi.
        scale: The standard deviation of the noise of each coordinate in data units, (D,), if it is Gaussian and
            differs; else None.
    """

    name: ClassVar[str]
    dispersion: float | Tensor = 1.0
    scale: Tensor | None = None

    @property
    def unit(self) -> float:
        """The standard deviation of the noise in the embedding."""
        return math.sqrt(self.dispersion)

    @abstractmethod
    def log_partition(self, outputs: Tensor) -> Tensor:
        """sum_d B(o_d) / phi in nats: (..., D) -> (...)."""

    @abstractmethod
    def base(self, x: Tensor) -> Tensor:
        """The part of log p(x | o) that x decides, less `constant`, in nats: (..., D) -> (...)."""

    def constant(self, data_dim: int) -> float:  # noqa: ARG002
        """The part of log p(x | o) that neither x nor o decides, in nats."""
        return 0.0

    @abstractmethod
    def conjugate(self, x: Tensor) -> Tensor:
        """max_o sum_d (x_d o_d - B(o_d)) / phi in nats, with which the best outputs explain x: (..., D) -> (...)."""

    @abstractmethod
    def mean(self, outputs: Tensor) -> Tensor:
        """E x in data units, the noiseless signal: (..., D) -> (..., D)."""

    @abstractmethod
    def outputs(self, mean: Tensor) -> Tensor:
        """The outputs with this mean, which must not be at the border of what means can be: (..., D) -> (..., D)."""

    @abstractmethod
    def interior(self, mean: Tensor, count: Tensor | float) -> Tensor:
        """The posterior mean of E x under Jeffreys' prior, so that it is not at the border of what means can be.

        Args:
            mean: The mean of data, (..., D).
            count: How many they are, a number or (..., 1).
        """

    @abstractmethod
    def embed(self, outputs: Tensor) -> Tensor:
        """Outputs where the Fisher metric is that of plain distances: (..., D) -> (..., D)."""

    def most(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor] | None:  # noqa: ARG002
        """A bound on <x, o> / phi - log_partition(o) over boxes of outputs, of a slope a and a constant b: <x, a> + b.

        It must hold for all x that can be means.

        Args:
            low: The smallest outputs of each box, (b, D).
            high: The largest ones, (b, D).

        Returns:
            The slope, (b, D), and the constant, (b,); None for a family that is bounded by distances alone.
        """
        return None

    @abstractmethod
    def sample(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """A draw of x for each row of outputs, (..., D), on their device."""

    @abstractmethod
    def refuse(self, x: Tensor) -> str | None:
        """Why data (n, D) cannot be of this family, with row and column counted from 1; None if they can."""

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        """log p(x | o) in nats: (..., D), (..., D) -> (...)."""
        fit = (x * outputs).sum(-1) / self.dispersion - self.log_partition(outputs)
        return fit + self.base(x) + self.constant(x.shape[-1])

    def affinity(self, x: Tensor, outputs: Tensor, offset: Tensor) -> Tensor:
        """<x, o> / phi + an offset, for every x and every o, by one matrix product.

        Args:
            x: Data, (n, D).
            outputs: Outputs, (m, D).
            offset: What is added for each o, (m,). With -log_partition(o), it is log p(x | o) up to a term in x.

        Returns:
            Values in nats, (n, m).
        """
        return torch.addmm(offset, x / self.dispersion, outputs.T)

    def compared(self, x: Tensor, outputs: Tensor, parts: int = 1) -> Tensor:
        """log p(x | o) for every x and every o, up to a term in x, averaged over each `parts` neighbouring outputs.

        Args:
            x: Data, (n, D).
            outputs: Outputs, (m parts, D).
            parts: How many outputs to average over.

        Returns:
            Values in nats, (n, m).
        """
        found = self.deviances(x, outputs)
        if parts > 1:
            found = found.unflatten(1, (-1, parts)).mean(2)
        return found / (-2 * self.dispersion)

    def deviances(self, x: Tensor, outputs: Tensor) -> Tensor:
        """The deviance of every x and every o, up to a term in x: (n, D), (m, D) -> (n, m)."""
        return torch.addmm(2 * self.dispersion * self.log_partition(outputs), x, outputs.T, alpha=-2)

    def deviance(self, x: Tensor, outputs: Tensor) -> Tensor:
        """2 phi (max_o' log p(x | o') - log p(x | o)), |x - o|^2 for Gaussian data: (..., D), (..., D) -> (...)."""
        fit = (x * outputs).sum(-1) - self.dispersion * self.log_partition(outputs)
        return 2 * (self.dispersion * self.conjugate(x) - fit)

"""A problem: a true model that can be sampled and scored exactly."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets.quadrature import LogProb, log_marginal

Decode = Callable[[Tensor], Tensor]
STREAMS = ("train", "validation", "test")


@dataclass(frozen=True)
class Problem:
    """A true model: z ~ N(0, I_L), x | z ~ N(decoder(z), noise I_D).

    decoder: (..., L) -> (..., D), float64. noise: the variance s2, in squared data units.
    exact_log_prob: (n, D) -> (n,), the closed form of log p(x) where there is one.
    """

    name: str
    latent_dim: int
    data_dim: int
    noise: float
    decoder: Decode
    exact_log_prob: Callable[[Tensor], Tensor] | None = None

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws of x: (n, D), float64."""
        return self.sample_joint(n, generator)[1]

    def sample_joint(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n draws of the codes, (n, L), and of the data they gave, (n, D), float64."""
        z = torch.randn(n, self.latent_dim, generator=generator, dtype=torch.float64)
        noise = torch.randn(n, self.data_dim, generator=generator, dtype=torch.float64)
        return z, self.decoder(z) + math.sqrt(self.noise) * noise

    def log_prob(self, x: Tensor, tolerance: float = 1e-3) -> LogProb:
        """log p(x) in nats for x (n, D), with its numerical error: closed form, or else quadrature.

        Raises ValueError where neither is possible (latent dimension above 2, no closed form).
        """
        if self.exact_log_prob is not None:
            value = self.exact_log_prob(x)
            return LogProb(value, torch.zeros_like(value))
        return log_marginal(self.decoder, self.noise, x, self.latent_dim, tolerance)


@dataclass(frozen=True)
class Split:
    """Independent draws of one problem: train (N, D), validation (V, D), test (T, D), float64.

    codes: those that gave the training data, (N, L); for scoring, and never for a method.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    codes: Tensor


def stream(problem: str, seed: int, name: str) -> torch.Generator:
    """The random stream `name` of a problem at a seed, independent of all other streams and of their use."""
    key = np.random.SeedSequence([seed, zlib.crc32(problem.encode()), zlib.crc32(name.encode())])
    return torch.Generator().manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))


def draw(problem: Problem, seed: int, train: int, validation: int, test: int) -> Split:
    """Training, validation and test sets of a problem at a seed; no size changes another set's draws."""
    sizes = zip(STREAMS, (train, validation, test), strict=True)
    (codes, first), (_, second), (_, third) = (
        problem.sample_joint(n, stream(problem.name, seed, name)) for name, n in sizes
    )
    return Split(first, second, third, codes)


def require_latent_dim(name: str, own: int, asked: int | None) -> int:
    """The latent dimension of a problem that has just one.

    Raises ValueError if another one is asked for.
    """
    if asked not in (None, own):
        raise ValueError(f"dataset {name!r} has latent dimension {own}, got {asked}")
    return own

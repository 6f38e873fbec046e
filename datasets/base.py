"""What data come from: a problem, whose true model is known, or observations, of which there are only so many."""

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
LEAST_TEST = 200


class DataSource:
    """What data come from. A source without a true model has no noise variance.

    Attributes:
        name: Its name, which seeds its random streams.
        latent_dim: L, the dimension of z.
        data_dim: D, the dimension of x.
        noise_variance: The variance s2 of the true model's noise, in squared data units; None if it is not known.
    """

    name: str
    latent_dim: int
    data_dim: int
    noise_variance: float | None

    @property
    def has_truth(self) -> bool:
        """Whether the true model is known."""
        return self.noise_variance is not None


@dataclass(frozen=True)
class Problem(DataSource):
    """A true model: z ~ N(0, I_L), x | z ~ N(decoder(z), s2 I_D).

    decoder: (..., L) -> (..., D), float64. noise_variance: s2, in squared data units.
    exact_log_prob: (n, D) -> (n,), the closed form of log p(x) where there is one.
    """

    name: str
    latent_dim: int
    data_dim: int
    noise_variance: float
    decoder: Decode
    exact_log_prob: Callable[[Tensor], Tensor] | None = None

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws of x: (n, D), float64."""
        return self.sample_joint(n, generator)[1]

    def sample_joint(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n draws of the codes, (n, L), and of the data they gave, (n, D), float64."""
        z = torch.randn(n, self.latent_dim, generator=generator, dtype=torch.float64)
        noise = torch.randn(n, self.data_dim, generator=generator, dtype=torch.float64)
        return z, self.decoder(z) + math.sqrt(self.noise_variance) * noise

    def log_prob(self, x: Tensor, tolerance: float = 1e-3) -> LogProb:
        """log p(x) in nats for x (n, D), with its numerical error: closed form, or else quadrature.

        Raises ValueError where neither is possible (latent dimension above 2, no closed form).
        """
        if self.exact_log_prob is not None:
            value = self.exact_log_prob(x)
            return LogProb(value, torch.zeros_like(value))
        return log_marginal(self.decoder, self.noise_variance, x, self.latent_dim, tolerance)


@dataclass(frozen=True)
class Observations(DataSource):
    """Data (n, D), float64, in no order that matters, whose true model is not known.

    latent_dim: that of the models to be fitted.
    """

    name: str
    latent_dim: int
    data: Tensor

    @property
    def data_dim(self) -> int:  # type: ignore[override]
        """D, the dimension of x."""
        return self.data.shape[1]

    @property
    def noise_variance(self) -> None:  # type: ignore[override]
        """None, since the true model is not known."""


@dataclass(frozen=True)
class Split:
    """Data of one source that have nothing in common: train (N, D), validation (V, D), test (T, D), float64.

    codes: those that gave the training data, (N, L); for scoring, and never for a method. None where there are none.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    codes: Tensor | None


def stream(problem: str, seed: int, name: str) -> torch.Generator:
    """The random stream `name` of a problem at a seed, independent of all other streams and of their use."""
    key = np.random.SeedSequence([seed, zlib.crc32(problem.encode()), zlib.crc32(name.encode())])
    return torch.Generator().manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))


def draw(source: DataSource, seed: int, train: int, validation: int, test: int) -> Split:
    """Training, validation and test sets at a seed; any may be of no data.

    Of a problem, independent draws; no size changes another set, and the stream of a set of none is not opened. Of
    observations, parts of their permutation by the seed: training data from its beginning, as many as asked; test data
    from its end and validation data before these, as many as asked of what is left, but of that at most half (rounded
    down) for validation.

    Raises ValueError where training leaves fewer than 200 observations for the test set.
    """
    if isinstance(source, Observations):
        return _partition(source, seed, train, validation, test)
    if not isinstance(source, Problem):
        raise TypeError(f"data are drawn from a Problem or from Observations, got {type(source).__name__}")
    sizes = zip(STREAMS, (train, validation, test), strict=True)
    (codes, first), (_, second), (_, third) = (
        source.sample_joint(n, stream(source.name, seed, name) if n else torch.Generator()) for name, n in sizes
    )
    return Split(first, second, third, codes)


def _partition(source: Observations, seed: int, train: int, validation: int, test: int) -> Split:
    count = len(source.data)
    left = count - train
    validation = min(validation, left // 2)
    if left - validation < LEAST_TEST:
        raise ValueError(
            f"{source.name} has {count} data: {train} for training leave {max(left - validation, 0)} for the test set, "
            f"fewer than {LEAST_TEST}"
        )
    order = torch.randperm(count, generator=stream(source.name, seed, "permutation"))
    shuffled = source.data[order]
    end = left - validation
    return Split(shuffled[:train], shuffled[train : train + validation], shuffled[count - min(test, end) :], None)


def require_latent_dim(name: str, own: int, asked: int | None) -> int:
    """The latent dimension of a problem that has just one.

    Raises ValueError if another one is asked for.
    """
    if asked not in (None, own):
        raise ValueError(f"dataset {name!r} has latent dimension {own}, got {asked}")
    return own

"""Data sources: a problem, whose true model is known, or observations, a fixed dataset whose true model is not."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets.quadrature import LogProb, log_marginal
from methods.likelihoods import DISCRETE, FAMILIES, Gaussian, Likelihood

Decode = Callable[[Tensor], Tensor]
STREAMS = ("train", "validation", "test")
LEAST_TEST = 200


class DataSource:
    """What data come from. Everything that a source declares stands here.

    Attributes:
        name: The name, which also seeds the random streams of the data.
        latent_dim: L, the dimension of z.
        data_dim: D, the dimension of x.
        noise_variance: s2 of Gaussian data with a known true model, in squared data units; else None.
        family: The family of p(x | z): "gaussian", "bernoulli" or "poisson".
    """

    name: str
    latent_dim: int
    data_dim: int
    noise_variance: float | None
    family: str


@dataclass(frozen=True)
class Problem(DataSource):
    """A data source with a known true model: z ~ N(0, I_L), x | z ~ p(x | decoder(z)).

    Args:
        name: The name, which also seeds the random streams of the data.
        latent_dim: L, the dimension of z.
        data_dim: D, the dimension of x.
        noise_variance: s2 of Gaussian data, in squared data units; None for another family.
        decoder: The outputs that p(x | z) depends on, (..., L) -> (..., D), float64: means of Gaussian data, logits of
            binary data, log rates of counts.
        exact_log_prob: log p(x) in nats in closed form, (n, D) -> (n,); None if there is none.
        family: The family of p(x | z): "gaussian", "bernoulli" or "poisson".

    Raises:
        ValueError: For an unknown family.
    """

    name: str
    latent_dim: int
    data_dim: int
    noise_variance: float | None
    decoder: Decode
    exact_log_prob: Callable[[Tensor], Tensor] | None = None
    family: str = Gaussian.name

    def __post_init__(self) -> None:
        require_family(self.family)

    @property
    def likelihood(self) -> Likelihood:
        """p(x | z), given the decoder's outputs."""
        if self.family in DISCRETE:
            return DISCRETE[self.family]
        return Gaussian(self.noise_variance)  # type: ignore[arg-type]

    def signal(self, z: Tensor) -> Tensor:
        """The noiseless signal, the mean of x given z in data units: (..., L) -> (..., D)."""
        return self.likelihood.mean(self.decoder(z))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws of x, (n, D), float64."""
        return self.sample_joint(n, generator)[1]

    def sample_joint(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n draws of the codes, (n, L), with the data generated from them, (n, D), float64."""
        z = torch.randn(n, self.latent_dim, generator=generator, dtype=torch.float64)
        with torch.no_grad():  # a decoder that is a module would put its graph on the data
            return z, self.likelihood.sample(self.decoder(z), generator)

    def log_prob(self, x: Tensor, tolerance: float = 1e-3) -> LogProb:
        """log p(x) with its numerical error: in closed form if there is one, else by quadrature.

        Args:
            x: Points, (n, D).
            tolerance: The largest mean error of the quadrature, in nats.

        Raises:
            ValueError: If there is no closed form and the latent dimension is above 2.
        """
        if self.exact_log_prob is not None:
            value = self.exact_log_prob(x)
            return LogProb(value, torch.zeros_like(value))
        return log_marginal(self.decoder, self.likelihood, x, self.latent_dim, tolerance)


@dataclass(frozen=True)
class Observations(DataSource):
    """A fixed real dataset with unknown true model.

    Args:
        name: The name, which also seeds the permutation that splits the data.
        latent_dim: L, the latent dimension of the models to be fitted.
        data: All points, (n, D), float64; their order does not matter.
        least_test: The fewest points that a test set may have.
        image_shape: Height and width, if a point is an image, row by row; reports then show images.
        family: The family of p(x | z) of the models to be fitted: "gaussian", "bernoulli" or "poisson".

    Raises:
        ValueError: For an unknown family.
    """

    name: str
    latent_dim: int
    data: Tensor
    least_test: int = LEAST_TEST
    family: str = Gaussian.name
    image_shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        require_family(self.family)

    @property
    def data_dim(self) -> int:  # type: ignore[override]
        """D, the dimension of x."""
        return self.data.shape[1]

    @property
    def noise_variance(self) -> None:  # type: ignore[override]
        """None: the true model is unknown."""


@dataclass(frozen=True)
class Split:
    """Disjoint training, validation and test sets of one source.

    Args:
        train: Training points, (N, D), float64.
        validation: Validation points, (V, D), float64.
        test: Test points, (T, D), float64.
        codes: The true codes of the training points, (N, L), for scoring only: methods never get them. None for
            observations.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    codes: Tensor | None


def stream(source: str, seed: int, name: str) -> torch.Generator:
    """A random stream that is independent of all other streams and of their use.

    Args:
        source: The name of the data source, or of any other user of the stream.
        seed: The seed.
        name: The name of the stream.
    """
    key = np.random.SeedSequence([seed, zlib.crc32(source.encode()), zlib.crc32(name.encode())])
    return torch.Generator().manual_seed(int(key.generate_state(1, np.uint64)[0] >> 1))


def draw(source: DataSource, seed: int, n_train: int, n_validation: int, n_test: int) -> Split:
    """Training, validation and test sets at a seed.

    For a problem, the sets are independent draws, and the size of one changes no other. The stream of an empty set is
    never opened. For observations, the sets are parts of one permutation of the data: training points from its
    beginning, test points from its end, validation points after the training points. Validation and test sets are
    smaller than asked where too few points are left: validation gets at most half of the rest, rounded down.

    Args:
        source: The data source.
        seed: The seed of the draws or of the permutation.
        n_train: Number of training points.
        n_validation: Number of validation points; may be 0.
        n_test: Number of test points; may be 0.

    Raises:
        ValueError: If fewer observations are left for the test set than it needs, 200 by default.
        TypeError: If the source is neither a Problem nor Observations.
    """
    if isinstance(source, Observations):
        return _partition(source, seed, n_train, n_validation, n_test)
    if not isinstance(source, Problem):
        raise TypeError(f"draw needs a Problem or Observations, got {type(source).__name__}")
    sizes = zip(STREAMS, (n_train, n_validation, n_test), strict=True)
    (codes, train), (_, validation), (_, test) = (
        source.sample_joint(n, stream(source.name, seed, name) if n else torch.Generator()) for name, n in sizes
    )
    return Split(train, validation, test, codes)


def _partition(source: Observations, seed: int, n_train: int, n_validation: int, n_test: int) -> Split:
    count = len(source.data)
    left = count - n_train
    n_validation = min(n_validation, left // 2)
    if left - n_validation < source.least_test:
        raise ValueError(
            f"{source.name} has {count} points: {n_train} training points leave {max(left - n_validation, 0)} for the "
            f"test set, which needs at least {source.least_test}"
        )
    order = torch.randperm(count, generator=stream(source.name, seed, "permutation"))
    shuffled = source.data[order]
    test = shuffled[count - min(n_test, left - n_validation) :]
    return Split(shuffled[:n_train], shuffled[n_train : n_train + n_validation], test, None)


def require_family(family: str) -> None:
    """Check the name of a family of p(x | z).

    Raises:
        ValueError: If there is no such family.
    """
    if family not in FAMILIES:
        raise ValueError(f"the likelihood must be {', '.join(FAMILIES)}, got {family!r}")


def require_latent_dim(name: str, own: int, asked: int | None) -> int:
    """The latent dimension of a problem that has only one.

    Args:
        name: The name of the problem.
        own: Its latent dimension.
        asked: The latent dimension asked for, if any.

    Raises:
        ValueError: If another latent dimension is asked for.
    """
    if asked not in (None, own):
        raise ValueError(f"dataset {name!r} has latent dimension {own}, got {asked}")
    return own

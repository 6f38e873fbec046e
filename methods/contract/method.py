"""The contract between methods and the harness.

A method is a value: a frozen dataclass whose fields are its hyperparameters and whose `fit` is a generator. It
yields a `Fitted` whenever it may be looked at; whoever drives it owns the clock, the budget, the checkpoints and
the evaluation. Nothing here depends on the harness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from methods.contract.decoder import GaussianModel

T = TypeVar("T")


class DecoderModel(Protocol):
    """A generative model p(z) p(x | z) = N(0, I) N(decode(z), noise I), in the units of the data."""

    def decode(self, z: Tensor) -> Tensor:
        """The mean of x given z: (..., L) -> (..., D)."""
        ...

    def variance(self) -> float:
        """The variance s2 of the noise, in squared data units."""
        ...


class Posterior(Protocol):
    """An approximate posterior q(z | x) with a density.

    It may also have `from_uniform(x, u)`, the map from the unit cube, (m, K) with K > L at hand, to points of q(z | x),
    (m, n, L), by which a few well-spread points stand for q; and `best(model, x)`, the posterior of its family that is
    best under a model for each of certain x, by which what the family costs is told from what amortisation costs.
    """

    def sample(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` draws for each x (n, D), (count, n, L), and log q(z | x) of each in nats, (count, n)."""
        ...


@dataclass(frozen=True)
class Fitted:
    """What a method has learned so far: a view of live parameters, good until `fit` is resumed.

    log_index: for a method that has one, its index posterior log p(i | x) over the training data in their order,
    (n, D) -> (n, N).
    """

    model: DecoderModel
    posterior: Posterior
    log_index: Callable[[Tensor], Tensor] | None = None


class Ledger(Protocol):
    """Where a method accounts for its work.

    Everything torch runs is counted without a word from the method. `run` makes counting free of overhead for work
    that repeats; `charge` accounts for work done outside torch.
    """

    def run(self, name: str, work: Callable[..., T], *args: Any) -> T:
        """work(*args), for work whose operators depend only on its name and the shapes of its arguments."""
        ...

    def charge(self, name: str, flops: float) -> None:
        """Add FLOPs of a call that torch does not see, by a stated formula."""
        ...

    def watch(self, *, decoder: torch.nn.Module | None = None, encoder: torch.nn.Module | None = None) -> None:
        """Count the rows that pass forward through a network as decoder or encoder passes."""
        ...


@dataclass(frozen=True)
class Task:
    """One fitting problem, as a method sees it.

    train (N, D), validation (V, D): float32, in original units; the test set is out of reach.
    model: the generative model at its initial weights, the same for every method at a seed; train it in place.
    generator: the only source of randomness. truth: the true model, for methods that set `sees_truth`; else None.

    Raises ValueError for data that are no matrix, none at all, or not finite, so that no method need look.
    """

    train: Tensor
    validation: Tensor
    model: GaussianModel
    generator: torch.Generator
    ledger: Ledger
    truth: DecoderModel | None = None

    def __post_init__(self) -> None:
        _check_data("training", self.train)
        _check_data("validation", self.validation)

    @property
    def latent_dim(self) -> int:
        """L, the dimension of z."""
        return self.model.latent_dim


def _check_data(name: str, x: Tensor) -> None:
    if x.dim() != 2 or not x.numel():
        raise ValueError(f"{name} data must be a matrix of one row or more, got shape {tuple(x.shape)}")
    # By numpy, as a method may make a task anew in its fit, and checking it is no work of the method's.
    broken = int((~np.isfinite(x.detach().cpu().numpy())).any(1).sum())
    if broken:
        raise ValueError(f"{name} data must be finite; {broken} of {len(x)} rows are not")


@runtime_checkable
class Method(Protocol):
    """An inference scheme. Also a frozen dataclass; its fields are its declared hyperparameters."""

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Learn from task.train, yielding after each unit of work after which one may look or stop."""
        ...


def require(method: object, *, positive: Iterable[str] = (), not_negative: Iterable[str] = ()) -> None:
    """Raise ValueError for the first of these hyperparameters that is not a finite number of that sign."""
    for name in (*positive, *not_negative):
        value = getattr(method, name)
        zero = value == 0 and name in not_negative
        if not (math.isfinite(value) and (value > 0 or zero)):
            raise ValueError(f"{name} must be {'positive' if name in positive else 'at least 0'}, got {value}")


def sees_truth(method: object) -> bool:
    """Whether a method is a reference that is handed the true model."""
    return bool(getattr(method, "sees_truth", False))


def declines(method: object, latent_dim: int, data_dim: int, size: int) -> str | None:
    """Why a method does not take so many data of these dimensions, as its `skip` says; None if it takes them."""
    skip: Callable[[int, int, int], str | None] = getattr(method, "skip", lambda *_: None)
    return skip(latent_dim, data_dim, size)


class FreeLedger:
    """A ledger that counts nothing, for using a method without the harness."""

    def run(self, name: str, work: Callable[..., T], *args: Any) -> T:  # noqa: ARG002
        """work(*args)."""
        return work(*args)

    def charge(self, name: str, flops: float) -> None:
        """Nothing."""

    def watch(self, *, decoder: torch.nn.Module | None = None, encoder: torch.nn.Module | None = None) -> None:
        """Nothing."""

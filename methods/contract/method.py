"""The contract between methods and the harness: what a method declares, receives and yields.

A method is a value: a frozen dataclass whose fields are its hyperparameters and whose `fit` is a generator. It yields
a `Fitted` whenever it may be evaluated or stopped. The harness owns the clock, the budget, the checkpoints and the
evaluation. Everything that a method, a posterior or a ledger may declare stands here, with its default.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from methods.contract.decoder import GenerativeModel
from methods.contract.search_space import Range
from methods.likelihoods import Gaussian, Likelihood

T = TypeVar("T")
Role = Literal["method", "reference", "ceiling", "floor"]


class DecoderModel(Protocol):
    """A generative model, z ~ N(0, I), x | z ~ p(x | decode(z)).

    It has a `likelihood`, or a method `variance` that returns s2, for N(decode(z), s2 I): see `likelihood_of`.
    """

    def decode(self, z: Tensor) -> Tensor:
        """The outputs that p(x | z) depends on: the mean of x in data units, if it is Gaussian.

        Args:
            z: Codes, (..., L).

        Returns:
            Outputs, (..., D).
        """
        ...


def likelihood_of(model: DecoderModel) -> Likelihood:
    """p(x | z) of a model at its present weights: its `likelihood`, or a Gaussian of its `variance()`."""
    found: Likelihood | None = getattr(model, "likelihood", None)
    return Gaussian(model.variance()) if found is None else found  # type: ignore[attr-defined]


class Posterior(ABC):
    """An approximate posterior q(z | x) with a density. Only `sample` must be defined."""

    @abstractmethod
    def sample(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws of q(z | x) with their log-densities.

        Args:
            x: Data, (n, D).
            count: Number of draws for each x.
            generator: The only source of randomness.

        Returns:
            Codes, (count, n, L), and log q(z | x) of each in nats, (count, n).
        """

    def from_uniform(self, x: Tensor, u: Tensor) -> Tensor | None:  # noqa: ARG002
        """The map from the unit cube to q(z | x), by which a few well-spread points represent q.

        Args:
            x: Data, (n, D).
            u: Points of the unit cube, (m, K) with K >= L.

        Returns:
            Codes, (m, n, L); None where the posterior has no such map, and random draws represent it.
        """
        return None

    def log_prob(self, z: Tensor, x: Tensor) -> Tensor | None:  # noqa: ARG002
        """The density of every q(z | x) at every code, which shows how far the codes of different x overlap.

        Args:
            z: Codes, (m, L).
            x: Data, (n, D).

        Returns:
            log q(z | x) in nats, (m, n); None where it is known at the posterior's own draws only.
        """
        return None

    def best(self, model: DecoderModel, x: Tensor) -> Posterior | None:  # noqa: ARG002
        """The member of the posterior's family with the highest ELBO under a model, for each x by itself.

        It separates the cost of the family from the cost of amortisation (Cremer et al. 2018, arXiv 1801.03558).

        Args:
            model: The generative model.
            x: Data, (n, D).

        Returns:
            A posterior for exactly these x; None where no way to find it is known.
        """
        return None


@dataclass(frozen=True)
class Fitted:
    """What a method has learned so far: a view of live parameters, valid until `fit` is resumed.

    Args:
        model: The generative model.
        posterior: The approximate posterior q(z | x).
        log_index: For a method that has one, its index posterior log p(i | x) over the training points in their
            order, (n, D) -> (n, N), in nats.

    Raises:
        TypeError: If the posterior is not a `Posterior`.
    """

    model: DecoderModel
    posterior: Posterior
    log_index: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.posterior, Posterior):
            kind = type(self.posterior).__name__
            raise TypeError(f"Fitted.posterior must be a methods.contract.method.Posterior, got {kind}")


class Ledger(Protocol):
    """Where a method accounts for its work. Everything that torch runs is counted automatically."""

    def run(self, name: str, work: Callable[..., T], *args: Any) -> T:
        """Run repeated work at full speed: it is counted once for each set of argument shapes.

        Args:
            name: What the work is called in the tables.
            work: A function whose operators depend only on `name` and the shapes of its arguments.
            *args: Its arguments.

        Returns:
            work(*args).
        """
        ...

    def repeat(self, name: str, alone: Callable[[], object]) -> None:
        """Account for work that is done elsewhere, together with that of other seeds.

        Args:
            name: What the work is called in the tables.
            alone: The same work done alone; it is run the first time that its name is seen, to count what it costs.
        """
        ...

    def charge(self, name: str, flops: float) -> None:
        """Add the FLOPs of work that torch does not run.

        Args:
            name: What the work is called in the tables.
            flops: Its FLOPs, by a formula that the method states.
        """
        ...

    def watch(self, *, decoder: torch.nn.Module | None = None, encoder: torch.nn.Module | None = None) -> None:
        """Count the rows that pass forward through a network.

        Args:
            decoder: A network whose rows are decoder passes.
            encoder: A network whose rows are encoder passes.
        """
        ...


class NullLedger:
    """A ledger that counts nothing, for using a method without the harness."""

    def run(self, name: str, work: Callable[..., T], *args: Any) -> T:  # noqa: ARG002
        """Run the work and count nothing."""
        return work(*args)

    def repeat(self, name: str, alone: Callable[[], object]) -> None:
        """Do nothing."""

    def charge(self, name: str, flops: float) -> None:
        """Do nothing."""

    def watch(self, *, decoder: torch.nn.Module | None = None, encoder: torch.nn.Module | None = None) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Task:
    """One fitting problem, as a method sees it. The test set is out of reach.

    Args:
        train: Training points, (N, D), float32, in data units.
        validation: Validation points, (V, D), float32, in data units.
        model: The generative model at its initial weights, the same for every method at a seed. Train it in place.
        generator: The only source of randomness.
        ledger: Where work is accounted for.
        truth: The true model, for methods that set `sees_truth`; None for all others.

    Raises:
        ValueError: If training or validation points are not a matrix, are empty, or are not finite.
    """

    train: Tensor
    validation: Tensor
    model: GenerativeModel
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
    # By numpy, since a method may make a new task within its fit, and this check is not the method's work.
    broken = int((~np.isfinite(x.detach().cpu().numpy())).any(1).sum())
    if broken:
        raise ValueError(f"{name} data must be finite; {broken} of {len(x)} rows are not")


class Method(ABC):
    """An inference scheme: a frozen dataclass whose fields are its hyperparameters, all with defaults.

    Class attributes say what the harness should know about the method; each has a default.

    Attributes:
        search: The range of each hyperparameter that `tune` may vary. Empty: the method is not tuned.
        ablation: The levels of each hyperparameter that `sweep` tries when no factor is named.
        sees_truth: Whether the method is given the true model. Only a reference should set it.
        role: "method" for an inference scheme; "reference" for another implementation of one, which takes no part in
            ranks. "ceiling" and "floor" mark what learns nothing: it is drawn as a line, and takes no part in
            comparisons, ranks and tuning.
        stacks: Whether the method can fit several seeds as one program.
        colour_group: Methods of the same group have the same hue in every figure. Empty: the method's own name.
        exceptions: The checks of the conformance kit that the method cannot pass, each with the reason.
    """

    search: ClassVar[Mapping[str, Range]] = {}
    ablation: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    sees_truth: ClassVar[bool] = False
    role: ClassVar[Role] = "method"
    stacks: ClassVar[bool] = False
    colour_group: ClassVar[str] = ""
    exceptions: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def fit(self, task: Task) -> Iterator[Fitted]:
        """Learn from task.train.

        Args:
            task: The fitting problem.

        Yields:
            What has been learned, after each unit of work after which the harness may evaluate or stop the fit.
        """

    def fit_together(self, tasks: Sequence[Task]) -> Iterator[Sequence[Fitted]]:
        """Fit several seeds as one program, for a method that sets `stacks`.

        Each seed must have the values that it has alone, up to rounding, whatever the other seeds are.

        Args:
            tasks: The fitting problems, of equal shapes.

        Yields:
            What has been learned in each of them, after each unit of work.
        """
        raise NotImplementedError(f"{type(self).__name__} does not fit several seeds as one program")

    def skip_likelihood(self, family: str, latent_dim: int) -> str | None:  # noqa: ARG002
        """The reason why the method does not accept data of a family. By default it fits Gaussian data only.

        Args:
            family: The family of p(x | z): a name in `methods.likelihoods.FAMILIES`, or that of
                `PerCoordinateGaussian`, whose decoder gives means over variances.
            latent_dim: L, the dimension of z.

        Returns:
            The reason in a few words; None if the method accepts them.
        """
        return None if family == Gaussian.name else f"it fits gaussian data only, got {family}"

    def skip(self, latent_dim: int, data_dim: int, n_train: int) -> str | None:  # noqa: ARG002
        """The reason why the method does not accept data of these sizes.

        Args:
            latent_dim: L, the dimension of z.
            data_dim: D, the dimension of x.
            n_train: N, the number of training points.

        Returns:
            The reason in a few words; None if the method accepts them.
        """
        return None


def require(method: object, *, positive: Iterable[str] = (), not_negative: Iterable[str] = ()) -> None:
    """Check hyperparameters that must be finite numbers of one sign.

    Args:
        method: The method.
        positive: Names of hyperparameters that must be above 0.
        not_negative: Names of hyperparameters that must be at least 0.

    Raises:
        ValueError: For the first hyperparameter that breaks its condition.
    """
    for name in (*positive, *not_negative):
        value = getattr(method, name)
        zero = value == 0 and name in not_negative
        if not (math.isfinite(value) and (value > 0 or zero)):
            raise ValueError(f"{name} must be {'positive' if name in positive else 'at least 0'}, got {value}")

"""References for every comparison: a ceiling, the true model, and a floor, the model before training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from methods.common.latent_grid import MOST_COORDINATES, exact_posterior, index_without_codes
from methods.common.posteriors import PerDatumGaussian, Prior
from methods.contract.method import Fitted, Method, Role, Task


@dataclass(frozen=True)
class Oracle(Method):
    """The true model with its own posterior: no method can beat it on average.

    Its index posterior is the best possible without the codes of the training points, which it does not know. Above
    two latent dimensions its q(z | x) is the best diagonal Gaussian for each x.
    """

    sees_truth: ClassVar[bool] = True
    role: ClassVar[Role] = "ceiling"

    def skip_likelihood(self, family: str, latent_dim: int) -> str | None:  # noqa: ARG002
        """None: it accepts any likelihood."""
        return None

    def skip(self, latent_dim: int, data_dim: int, n_train: int) -> str | None:  # noqa: ARG002
        """The reason why the exact posterior cannot be computed, or None."""
        if latent_dim == 2 and data_dim > MOST_COORDINATES:
            return f"no grid of the plane resolves a posterior given {data_dim} coordinates"
        return None

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yield the true model once.

        Raises:
            ValueError: If the task has no true model.
        """
        if task.truth is None:
            raise ValueError("oracle needs the true model, and this task has none")
        if task.latent_dim > 2:
            yield Fitted(task.truth, PerDatumGaussian(task.truth, task.latent_dim))
            return
        posterior = exact_posterior(task.truth, task.latent_dim)
        yield Fitted(task.truth, posterior, index_without_codes(posterior, task.train))


@dataclass(frozen=True)
class Untrained(Method):
    """The generative model at its initial weights, with the prior as its posterior: every method should beat it."""

    role: ClassVar[Role] = "floor"

    def skip_likelihood(self, family: str, latent_dim: int) -> str | None:  # noqa: ARG002
        """None: it accepts any likelihood."""
        return None

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yield the initial model once."""
        yield Fitted(task.model, Prior(task.latent_dim))

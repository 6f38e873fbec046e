"""Training of a decoder without an encoder: what is inferred of each training point is a row of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from methods.common.amortised import AmortisedMethod
from methods.common.held_out import MOST_DIMENSIONS
from methods.common.latent_grid import MOST_COORDINATES
from methods.common.mixture_likelihood import ModelPosterior
from methods.common.posteriors import PerDatumGaussian
from methods.contract.decoder import GenerativeModel, standard_normal_log_prob
from methods.contract.method import Fitted, Posterior, Task

SPREAD = 0.01


class Table(nn.Module):
    """A row of numbers for each training point.

    Args:
        values: The rows at the start, (N, K).
    """

    replica_axes: ClassVar[Mapping[str, int]] = {"values": 0}

    def __init__(self, values: Tensor):
        super().__init__()
        self.values = nn.Parameter(values)


@dataclass(frozen=True)
class WithoutEncoder(AmortisedMethod):
    """Training of a decoder together with a row of numbers for each training point. A method states what a row means.

    The objective takes the rows of a batch, (..., n, K), as its posterior. For a new x, q(z | x) is the decoder's own:
    exact on a latent grid, or above two latent dimensions the best diagonal Gaussian for each x. Above two, states are
    compared by the bounds of training points, as others have no rows.
    """

    per_datum: ClassVar[bool] = True

    @property
    def row_rate(self) -> float:
        """Learning rate of the rows, in units of that of the decoder."""
        return 1.0

    def start(self, task: Task) -> Tensor:
        """The rows at the start, (N, K): by default codes near 0."""
        return near_zero(task, task.latent_dim)

    def encoder(self, model: GenerativeModel, task: Task) -> nn.Module:  # noqa: ARG002
        """The table of all rows, in units of their learning rate."""
        return Table(self.start(task) / self.row_rate)

    def posterior(self, model: GenerativeModel, encoder: Any) -> Posterior:  # noqa: ARG002
        """q(z | x) for a new x, given the present decoder."""
        grid = model.latent_dim == 1 or (model.latent_dim <= MOST_DIMENSIONS and model.data_dim <= MOST_COORDINATES)
        return ModelPosterior(model) if grid else PerDatumGaussian(model, model.latent_dim)

    def posterior_of_batch(self, model: GenerativeModel, encoder: Any, index: Tensor) -> Any:  # noqa: ARG002
        """The rows of a batch, (..., n, K)."""
        return (self.row_rate * encoder.values).take_along_dim(index, -2)

    def fit_together(self, tasks: Sequence[Task]) -> Iterator[Sequence[Fitted]]:
        """Yield after every step what has been learned of each, with the posterior of its present decoder."""
        for _ in super().fit_together(tasks):
            yield [Fitted(task.model, self.posterior(task.model, None)) for task in tasks]


def near_zero(task: Task, width: int) -> Tensor:
    """Small random numbers for each training point, (N, width): codes begin together, as with an untrained encoder."""
    shape = (len(task.train), width)
    return SPREAD * torch.randn(shape, generator=task.generator, device=task.generator.device)


def log_joint(model: GenerativeModel, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) in nats: x (..., D), z (..., L) -> (...)."""
    return model.log_likelihood(x, z) + standard_normal_log_prob(z)


def langevin_step(model: GenerativeModel, rate: float) -> Tensor:
    """The size of a Langevin step in squared units of z: `rate` times the noise variance in standard units.

    The precision of p(z | x) is 1 + |df/dz|^2 / s2, so that one rate suits any noise.
    """
    return rate * model.relative_noise()

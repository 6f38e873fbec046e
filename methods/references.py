"""Rows that every comparison needs: what no method can beat, and what every method must."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.base import DecoderModel, Fitted, Task
from methods.posteriors import CellPosterior, Prior, PriorCells

CELLS = {1: 2048, 2: 128**2}


@dataclass(frozen=True)
class Oracle:
    """The true model with its own posterior: the ceiling of any method on average."""

    sees_truth: ClassVar[bool] = True

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yields once, having done nothing.

        Raises ValueError where the task holds no true model.
        """
        if task.truth is None:
            raise ValueError("oracle needs the true model, and this task has none")
        yield Fitted(task.truth, exact_posterior(task.truth, task.latent_dim))


@dataclass(frozen=True)
class Untrained:
    """The generative model at its initial weights, with the prior for a posterior: the floor of any method."""

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yields once, having done nothing."""
        yield Fitted(task.model, Prior(task.latent_dim))


def exact_posterior(model: DecoderModel, latent_dim: int) -> CellPosterior:
    """The posterior of a model as the prior reweighted on a fine grid of cells.

    Raises ValueError for a latent dimension above 2.
    """
    if latent_dim not in CELLS:
        raise ValueError(f"a grid posterior takes latent dimension 1 or 2, got {latent_dim}")
    cells = PriorCells(CELLS[latent_dim], latent_dim)
    decoded = model.decode(cells.codes).double()

    def log_index(x: Tensor) -> Tensor:
        return torch.log_softmax(torch.cdist(x.double(), decoded).square() / (-2 * model.variance()), 1)

    return CellPosterior(log_index, cells)

"""A user's own table: a real dataset with unknown true model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from datasets.base import Observations

if TYPE_CHECKING:
    import numpy as np

LATENT_DIM = 2
LEAST_TEST = 10


def own(latent_dim: int | None = None, likelihood: str = "gaussian", *, values: np.ndarray) -> Observations:
    """The rows of a table. Their splits depend on the seed and on nothing else, such as the name of a file.

    Args:
        latent_dim: L, the latent dimension of the models to be fitted; by default 2, or 1 for a single column.
        likelihood: The family of p(x | z): "gaussian", "bernoulli" for 0 and 1, or "poisson" for counts.
        values: The rows, (n, D), float64.
    """
    latent = min(LATENT_DIM, values.shape[1]) if latent_dim is None else latent_dim
    return Observations("data", latent, torch.from_numpy(values), LEAST_TEST, likelihood)

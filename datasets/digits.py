"""Handwritten digits: a real dataset with unknown true model."""

from __future__ import annotations

import torch

from datasets.base import Observations
from datasets.images import observed

LATENT_DIM = 8
LATENT_DIMS = range(1, 33)
LEVELS = 17
SHAPE = (8, 8)


def digits(latent_dim: int | None = None, *, binary: str | None = None) -> Observations:
    """The 1,797 digits of 8 x 8 pixels that come with scikit-learn (Alpaydin & Kaynak 1998), x = (v + u) / 17.

    v in 0..16 counts the dark dots among the 16 dots of a pixel, and u is uniform on [0, 1). With binary=drawn, a pixel
    is 1 with probability v / 16. u and binary pixels are drawn once for all seeds (`datasets.images`). No part of this
    transformation is fitted to the data.

    Args:
        latent_dim: L, the latent dimension of the models to be fitted: 1 to 32, by default 8.
        binary: "drawn" for binary pixels and a Bernoulli likelihood; by default pixels are grey.

    Raises:
        ValueError: If the latent dimension is out of range, or for another rule.
    """
    from sklearn.datasets import load_digits

    latent = LATENT_DIM if latent_dim is None else latent_dim
    if latent not in LATENT_DIMS:
        raise ValueError(f"digits takes latent_dim 1 to 32, got {latent}")
    return observed("digits", latent, torch.tensor(load_digits().data), LEVELS, SHAPE, binary)

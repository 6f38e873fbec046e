"""Handwritten digits: a real dataset with unknown true model."""

from __future__ import annotations

import torch

from datasets.base import Observations

LATENT_DIM = 8
LATENT_DIMS = range(1, 33)
LEVELS = 17
SEED = 1998
SHAPE = (8, 8)


def digits(latent_dim: int | None = None) -> Observations:
    """The 1,797 digits of 8 x 8 pixels that come with scikit-learn (Alpaydin & Kaynak 1998), x = (v + u) / 17.

    v in 0..16 counts the dark dots among the 16 dots of a pixel. u is uniform on [0, 1) and is drawn once for all
    seeds. Without u, a density could gain from the values being whole numbers. With it, E log p(x) - 64 log 17 is at
    most the mean log probability of v under the model that integrates p over each pixel's interval (Theis et al. 2016,
    section 3.1). No part of this transformation is fitted to the data.

    Args:
        latent_dim: L, the latent dimension of the models to be fitted: 1 to 32, by default 8.

    Raises:
        ValueError: If the latent dimension is out of range.
    """
    from sklearn.datasets import load_digits

    latent = LATENT_DIM if latent_dim is None else latent_dim
    if latent not in LATENT_DIMS:
        raise ValueError(f"digits takes latent_dim 1 to 32, got {latent}")
    counts = torch.tensor(load_digits().data, dtype=torch.float64)
    uniform = torch.rand(counts.shape, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    return Observations("digits", latent, (counts + uniform) / LEVELS, image_shape=SHAPE)

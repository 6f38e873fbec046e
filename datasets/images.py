"""Grey images as data: grey values with noise that rounds away, or pixels that are 0 or 1."""

from __future__ import annotations

import torch
from torch import Tensor

from datasets.base import Observations

SEED = 1998
DRAWN = "drawn"


def observed(
    name: str, latent_dim: int, grey: Tensor, levels: int, shape: tuple[int, int], binary: str | None
) -> Observations:
    """The images of a set. What is drawn is drawn once, the same for all seeds of a study.

    Grey values v in 0..levels-1 become x = (v + u) / levels, with u uniform on [0, 1). Without u, a density could gain
    from the values being whole numbers. With it, E log p(x) - D log levels is at most the mean log probability of v
    under the model that integrates p over each pixel's interval (Theis et al. 2016, section 3.1). With binary="drawn",
    a pixel is 1 where u < v / (levels - 1), and the models have a Bernoulli likelihood.

    Args:
        name: The name of the set.
        latent_dim: L, the latent dimension of the models to be fitted.
        grey: Grey values, (n, D).
        levels: Their number.
        shape: Height and width.
        binary: "drawn", or None for grey pixels.

    Raises:
        ValueError: For another rule.
    """
    uniform = torch.rand(grey.shape, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    if binary is None:
        return Observations(name, latent_dim, (grey + uniform) / levels, image_shape=shape)
    if binary != DRAWN:
        raise ValueError(f"binary of {name} must be {DRAWN}, got {binary}")
    pixels = (uniform < grey / (levels - 1)).double()
    return Observations(f"{name}[binary={DRAWN}]", latent_dim, pixels, family="bernoulli", image_shape=shape)

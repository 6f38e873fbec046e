"""Images that a fitted model generates, for plots."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.store.schema import DATA, POINT, RECONSTRUCTION, SAMPLE
from methods.contract.method import Fitted, likelihood_of

SHOWN = 10
ImageRow = tuple[str, str, int, int, list[float]]


def images(name: str, fitted: Fitted, test: Tensor, latent_dim: int, width: int, seed: int) -> list[ImageRow]:
    """The first ten test points, a reconstruction of each, and ten samples of the model.

    A reconstruction is E[x | z] with one draw z ~ q(z | x), and a sample is E[x | z] with z ~ N(0, I).

    Args:
        name: The name of the method.
        fitted: What the method has learned.
        test: Test points, (T, D), row by row of an image.
        latent_dim: L, the dimension of z.
        width: Pixels of a row.
        seed: The seed of the draws.

    Returns:
        Rows (name, kind of image, its place, width, pixels); the name of test points is `data`.
    """
    x, generator = test[:SHOWN], torch.Generator(test.device).manual_seed(seed)
    z = torch.randn(SHOWN, latent_dim, generator=generator, device=test.device)
    encoded = fitted.posterior.sample(x, 1, generator)[0][0]
    mean = likelihood_of(fitted.model).mean
    shown = (
        (DATA, POINT, x),
        (name, RECONSTRUCTION, mean(fitted.model.decode(encoded))),
        (name, SAMPLE, mean(fitted.model.decode(z))),
    )
    return [
        (whose, kind, place, width, pixels)
        for whose, kind, each in shown
        for place, pixels in enumerate(each.float().cpu().tolist())
    ]

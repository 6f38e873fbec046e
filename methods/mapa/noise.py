"""Estimates of an unknown noise variance: a first one from the data alone, and one given a fit."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def pilot_noise(x: Tensor) -> float:
    """A first estimate of the noise variance: the kernel variance of the best leave-one-out density estimate.

    Args:
        x: Data, (N, D).

    Returns:
        The variance, in squared data units; 1 if all points are equal.
    """
    squared = torch.cdist(x, x).square().fill_diagonal_(math.inf)
    spread = float(x.var(0).mean()) if len(x) > 1 else 0.0
    if spread == 0:
        return 1.0
    candidates = spread * torch.logspace(-4, 0, 25, dtype=x.dtype)
    scores = [float(torch.logsumexp(squared / (-2 * v), 1).mean() - x.shape[1] / 2 * v.log()) for v in candidates]
    return float(candidates[int(torch.tensor(scores).argmax())])


def refine_noise(x: Tensor, centres: Tensor, noise: float, steps: int = 30) -> float:
    """The likeliest variance of a mixture of equal Gaussians with fixed centres, by expectation maximisation.

    It stays above a millionth of the variance of x, since with few data it could vanish.

    Args:
        x: Data, (n, D).
        centres: The means of the Gaussians, (M, D).
        noise: The variance to start from, in squared data units.
        steps: Number of steps.

    Returns:
        The variance, in squared data units.
    """
    least = max(1e-6 * float(x.var(0, unbiased=False).mean()), 1e-12)
    squared = torch.cdist(x, centres).square()
    for _ in range(steps):
        posterior = torch.softmax(squared / (-2 * noise), 1)
        noise = max(float((posterior * squared).sum() / x.numel()), least)
    return noise

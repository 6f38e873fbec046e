"""Estimates of an unknown noise variance: a first one from the data alone, and one given a fit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from methods.contract.decoder import LEAST_NOISE, GenerativeModel, PerCoordinateModel

STEPS = 30
TINY = 1e-12


@torch.no_grad()
def set_pilot(model: GenerativeModel, x: Tensor) -> None:
    """Set the noise of a model to a first estimate from the data alone.

    It makes the kernel density estimate of the other points best. With a variance for each coordinate it starts at the
    same part of the variance of each, and expectation maximisation goes on from there.

    Args:
        model: The generative model, whose noise is learned.
        x: Data, (N, D), float64.
    """
    if isinstance(model, PerCoordinateModel):
        spread = x.var(0, unbiased=False)
        unit = spread.where(spread > 0, 1.0).sqrt()
        start = pilot_noise(x / unit) * unit.square()
        model.set_variances(refine_variances(x, x, start, leave_one_out=True) if len(x) > 1 else start)
    else:
        model.set_variance(pilot_noise(x))


@torch.no_grad()
def refine(model: GenerativeModel, x: Tensor, codes: Tensor) -> None:
    """Set the noise of a model to the likeliest one of a mixture about decoded codes, all equally probable.

    Args:
        model: The generative model, whose noise is learned.
        x: Data, (n, D), float64.
        codes: Codes, (M, L).
    """
    if isinstance(model, PerCoordinateModel):
        centres = model.means(codes).double()
        model.set_variances(refine_variances(x, centres, model.variances.double()))
    else:
        model.set_variance(refine_noise(x, model.decode(codes).double(), model.variance()))


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


def refine_noise(x: Tensor, centres: Tensor, noise: float, steps: int = STEPS) -> float:
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
    least = _least(x)
    squared = torch.cdist(x, centres).square()
    for _ in range(steps):
        posterior = torch.softmax(squared / (-2 * noise), 1)
        noise = max(float((posterior * squared).sum() / x.numel()), least)
    return noise


def refine_variances(x: Tensor, centres: Tensor, variances: Tensor, leave_one_out: bool = False) -> Tensor:
    """The same with a variance for each coordinate.

    Args:
        x: Data, (n, D).
        centres: The means of the Gaussians, (M, D).
        variances: The variances to start from, (D,), in squared data units.
        leave_one_out: Whether centre i says nothing of point i.

    Returns:
        The variances, (D,), in squared data units.
    """
    least = _least(x)
    shift = x.mean(0)
    x, centres = x - shift, centres - shift
    for _ in range(STEPS):
        unit = variances.sqrt()
        distance = torch.cdist(x / unit, centres / unit).square()
        if leave_one_out:
            distance.fill_diagonal_(math.inf)
        posterior = torch.softmax(distance / -2, 1)
        squared = x.square().sum(0) + (centres * (posterior.sum(0)[:, None] * centres - 2 * posterior.T @ x)).sum(0)
        variances = (squared / len(x)).clamp(min=least)
    return variances


def least_noise(variance: float) -> float:
    """A millionth of the variance of data, below which no estimate goes; positive for points that are equal."""
    return max(LEAST_NOISE * variance, TINY)


def _least(x: Tensor) -> float:
    return least_noise(float(x.var(0, unbiased=False).mean()))

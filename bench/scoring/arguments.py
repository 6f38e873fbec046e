"""The caller's numbers and names, checked."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.common.errors import UsageError, describe, unknown
from bench.common.text import plain
from methods import likelihoods
from methods.likelihoods import DISCRETE, FAMILIES, Likelihood

MOST_DIMENSIONS = 1000


def points_of(x: Any) -> Tensor:
    """Points as a float64 matrix on the CPU, (n, D).

    Args:
        x: A tensor, an array or a frame.

    Raises:
        UsageError: If it is no matrix of finite real numbers.
    """
    try:
        array = _real(x, "biufO")
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"x must be numbers of shape (n, D), got {type(x).__name__}: {describe(error)}") from error
    if array.ndim != 2 or not array.size:
        raise UsageError(f"x must have shape (n, D) with a row or more, got shape {array.shape}")
    broken = int((~np.isfinite(array)).any(1).sum())
    if broken:
        raise UsageError(f"x must be finite; {broken} of {len(array)} rows are not")
    return torch.from_numpy(array.copy())


def family_of(name: object, noise_variance: object, data_dim: int) -> Likelihood:
    """The family of p(x | z).

    Args:
        name: Its name.
        noise_variance: s2 of a Gaussian, in squared units of x: a number, or one for each coordinate; else None.
        data_dim: D, the number of coordinates.

    Raises:
        UsageError: For an unknown family, or a noise variance that does not fit.
    """
    if name not in FAMILIES:
        raise unknown("likelihood", str(name), FAMILIES)
    if name not in DISCRETE:
        found = _variances(noise_variance, data_dim)
        return likelihoods.Gaussian(float(found)) if found.dim() == 0 else likelihoods.PerCoordinateGaussian(found)
    if noise_variance is not None:
        raise UsageError(f"likelihood {name!r} has no noise_variance, got {plain(repr(noise_variance), 100)}")
    return DISCRETE[str(name)]


def whole_number(name: str, value: object, least: int, most: int) -> int:
    """A whole number between two bounds.

    Args:
        name: The name of the argument.
        value: What is given for it.
        least: The lowest that is taken.
        most: The highest that is taken.

    Raises:
        UsageError: If it is anything else.
    """
    try:
        found = least - 1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        found = least - 1
    if not least <= found <= most:
        raise UsageError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
    return found


def _variances(value: Any, data_dim: int) -> Tensor:
    """The noise variance, () or (D,), float64, checked."""
    if value is None:
        raise UsageError("likelihood 'gaussian' needs noise_variance, a positive number in squared units of x")
    try:
        found = _real(value, "iuf")
    except (TypeError, ValueError, RuntimeError):
        found = np.array(math.nan)
    if found.shape not in ((), (data_dim,)) or not (np.isfinite(found) & (found > 0)).all():
        raise UsageError(
            f"noise_variance must be a positive number in squared units of x, or {data_dim} of them, one for each "
            f"coordinate; got {plain(repr(value), 100)}"
        )
    return torch.from_numpy(found.copy())


def _real(value: Any, kinds: str) -> np.ndarray:
    """Real numbers as float64; raises TypeError for what is of another kind, such as text and dates."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value if value.is_complex() else value.double()  # numpy does not know all kinds of torch
    array = np.asanyarray(value)
    if array.dtype.kind not in kinds:
        raise TypeError(f"it holds {array.dtype}, expected real numbers")
    return np.asarray(np.ma.filled(array.astype(np.float64), np.nan))

"""Data sources are checked when they are made, and brought into the form that all else relies on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from bench.common.errors import UsageError, describe
from datasets.base import DataSource, Observations, Problem
from methods.likelihoods import DISCRETE

PROBED = 5
LEAST_NOISE = 1e-9  # of the variance of the data; below it, double precision does not resolve a posterior


def checked(source: Any, name: str) -> DataSource:
    """A data source in double precision, if it is sound.

    Args:
        source: What a dataset's factory has given.
        name: The dataset's name, for messages.

    Raises:
        UsageError: Names the dataset, what was got and what was expected.
    """
    if not isinstance(source, Problem | Observations):
        found = type(source).__name__
        raise UsageError(f"dataset {name!r} must give a datasets.base.Problem or Observations, got {found}")
    try:
        if not isinstance(source.name, str) or not source.name:
            raise UsageError(f"name must be a text that is not empty, got {source.name!r}")
        _dimension("latent_dim", source.latent_dim)
        return _observations(source) if isinstance(source, Observations) else _problem(source)
    except UsageError as error:
        raise UsageError(f"dataset {name!r}: {error}") from None


def _dimension(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{what} must be a whole number from 1 on, got {value!r}")


def _observations(source: Observations) -> Observations:
    data = _numbers("data", source.data)
    if data.dim() != 2 or 0 in data.shape:
        raise UsageError(f"data must have a row for each point, (n, D), got shape {tuple(data.shape)}")
    _check_finite("data", data)
    _check_family("data", source, data)
    return dataclasses.replace(source, data=data)


def _problem(source: Problem) -> Problem:
    _dimension("data_dim", source.data_dim)
    noise = source.noise_variance
    if source.family in DISCRETE:
        if noise is not None:
            raise UsageError(f"noise_variance of {source.family} data must be None, got {noise!r}")
    elif isinstance(noise, bool) or not isinstance(noise, Real) or not 0 < float(noise) < math.inf:
        raise UsageError(f"noise_variance must be a number above 0 and finite, got {noise!r}")
    decoder = _decoder(source)
    with torch.no_grad():
        data = dataclasses.replace(source, decoder=decoder).sample(10 * PROBED, torch.Generator().manual_seed(0))
    _check_finite("data drawn", data)
    _check_family("data drawn", source, data)
    least = LEAST_NOISE * float(data.var(0).sum())
    if noise is not None and float(noise) < least:
        raise UsageError(f"noise_variance must be at least {least:.2g}, 1e-9 of that of the data, got {noise!r}")
    if source.exact_log_prob is not None:
        exact = _call("exact_log_prob", source.exact_log_prob, data)
        _check_shape("exact_log_prob", exact, (len(data),))
        _check_finite("exact_log_prob", exact[:, None])
    return dataclasses.replace(source, noise_variance=None if noise is None else float(noise), decoder=decoder)


def _decoder(source: Problem) -> Callable[[Tensor], Tensor]:
    """The decoder, in double precision; raises UsageError unless it maps codes to means, always in the same way."""
    plain, z = source.decoder, torch.linspace(-1, 1, 2 * PROBED * source.latent_dim, dtype=torch.float64)
    z = z.reshape(2, PROBED, source.latent_dim)
    first = _call("decoder", plain, z)
    _check_shape("decoder", first, (2, PROBED, source.data_dim))
    _check_finite("decoder", first.double().flatten(0, 1))
    if not torch.equal(first, _call("decoder", plain, z)):
        raise UsageError("decoder must give the same values for the same codes, got others when it was asked twice")
    return plain if first.dtype == torch.float64 else lambda codes: plain(codes).double()


def _call(what: str, function: Any, argument: Tensor) -> Tensor:
    if not callable(function):
        raise UsageError(f"{what} must be a function, got {type(function).__name__}")
    try:
        with torch.no_grad():
            found = function(argument)
    except (Exception, SystemExit) as error:
        shape = tuple(argument.shape)
        raise UsageError(f"{what} must take a torch.Tensor of shape {shape}, but raised {describe(error)}") from None
    if not isinstance(found, Tensor):
        raise UsageError(f"{what} must give a torch.Tensor, got {type(found).__name__}")
    if found.is_complex():
        raise UsageError(f"{what} must give real numbers, got {found.dtype}")
    return found


def _check_shape(what: str, found: Tensor, shape: tuple[int, ...]) -> None:
    if found.shape != shape:
        raise UsageError(f"{what} must give a tensor of shape {shape}, got {tuple(found.shape)}")


def _numbers(what: str, found: Any) -> Tensor:
    """A tensor in double precision, of a tensor or of what torch makes a tensor of."""
    try:
        data = found.detach() if isinstance(found, Tensor) else torch.as_tensor(found)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(found).__name__
        raise UsageError(f"{what} must be a tensor or an array of numbers, got {kind}: {describe(error)}") from None
    if data.is_complex():
        raise UsageError(f"{what} must be real numbers, got {data.dtype}")
    return data.cpu().double()


def _check_family(what: str, source: DataSource, data: Tensor) -> None:
    """Raise UsageError if rows (n, D) cannot be of the family of p(x | z)."""
    refused = DISCRETE[source.family].refuse(data) if source.family in DISCRETE else None
    if refused:
        raise UsageError(f"{what} cannot be {source.family}: {refused}")


def _check_finite(what: str, data: Tensor) -> None:
    """Raise UsageError if rows (n, D) hold what is not finite; it names the first row and column, counted from 1."""
    if not torch.isfinite(data).all():
        row, column = (~torch.isfinite(data)).nonzero()[0].tolist()
        raise UsageError(f"{what} must be finite, got {float(data[row, column])} in row {row + 1}, column {column + 1}")

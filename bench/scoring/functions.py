"""The caller's decoder and posterior, modules or functions, as functions of float64 tensors on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.common.errors import UsageError, describe
from methods.common.posteriors import Gaussian
from methods.contract.method import Posterior

PROBES = 8
FIRST_PROBES = 3
SAME = 1e-3
DIFFERENCE = 1e-3  # in z

Rows = Callable[[Tensor], Any]


def decoder(decode: object, latent_dim: int, data_dim: int) -> Rows:
    """The decoder as a function of codes (m, L), float64, on the CPU, with a gradient.

    Args:
        decode: A module, or a function of tensors or of arrays.
        latent_dim: L, the dimension of z.
        data_dim: D, the number of values that it must give for each code.

    Raises:
        UsageError: If it does not take such codes, or gives anything else.
    """
    z = torch.randn(PROBES, latent_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = _on_tensors(decode, "decode", z, f"codes of shape {tuple(z.shape)}, for latent_dim={latent_dim}")
    _check("decode", rows, z, data_dim, f"the columns of x, {data_dim}")
    with torch.enable_grad():
        codes = z.clone().requires_grad_()
        found = rows(codes)
        smooth = found.requires_grad and torch.autograd.grad(found.sum(), codes, allow_unused=True)[0] is not None
    return rows if smooth else lambda codes: _Differenced.apply(codes, rows)


def posterior_of(posterior: object, x: Tensor, latent_dim: int) -> Posterior:
    """The posterior, or the diagonal Gaussian of an encoder.

    Args:
        posterior: A posterior, or a function of points that gives the mean and the log of the standard deviation of z.
        x: Points, (n, D), of which the first 8 are tried.
        latent_dim: L, the dimension of z.

    Raises:
        UsageError: If it gives anything else.
    """
    probe = x[:PROBES]
    if isinstance(posterior, Posterior):
        z, log_q = posterior.sample(probe, 2, torch.Generator().manual_seed(0))
        got, expected = (tuple(z.shape), tuple(log_q.shape)), ((2, len(probe), latent_dim), (2, len(probe)))
        if got != expected:
            raise UsageError(f"posterior.sample gives shapes {got}, expected {expected} for latent_dim={latent_dim}")
        return posterior
    rows = _on_tensors(posterior, "posterior", probe, f"rows of shape {tuple(probe.shape)}")
    found = rows(probe)
    if not isinstance(found, Sequence) or len(found) != 2:
        raise UsageError(f"posterior gives {_shape(found)}, expected a pair: mean and log_scale, (n, L) each")
    for part, name in enumerate(("mean", "log_scale")):
        _check(f"posterior's {name}", _part(rows, part), probe, latent_dim, f"latent_dim={latent_dim}")
    return _Encoder(rows)


@contextmanager
def evaluating(*functions: object) -> Iterator[None]:
    """A context in which the modules behind functions are in evaluation mode.

    Args:
        functions: Modules, methods of modules, or anything else, which is left as it is.
    """
    owners = [owner for owner in map(_owner, functions) if isinstance(owner, nn.Module)]
    training = [part for owner in owners for part in owner.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


@dataclass(frozen=True)
class _Encoder(Gaussian):
    """The diagonal Gaussian whose mean and log standard deviation a function gives."""

    rows: Rows

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation: (n, D) -> (n, L), (n, L)."""
        mean, log_scale = self.rows(x)
        return mean, log_scale


class _Differenced(torch.autograd.Function):
    """A decoder whose gradient is found by differences. Leapfrog steps stay exact, whatever the force is."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, rows: Rows) -> Tensor:
        """The mean of x given z: (m, L) -> (m, D)."""
        ctx.save_for_backward(z)
        ctx.rows = rows
        return rows(z)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        """From the gradient in x, (m, D), to that in z, (m, L)."""
        (z,), (slope,) = ctx.saved_tensors, slopes
        shifts = DIFFERENCE * torch.eye(z.shape[1], dtype=z.dtype)
        moved = torch.cat([z[:, None] + shifts, z[:, None] - shifts], 1)
        decoded = ctx.rows(moved.flatten(0, 1)).unflatten(0, moved.shape[:2])
        ahead, behind = decoded.chunk(2, 1)
        return ((ahead - behind) @ slope[..., None])[..., 0] / (2 * DIFFERENCE), None


def _owner(function: object) -> object:
    """The module that a function is, or is a method of; the function itself if there is none."""
    return getattr(function, "__self__", function)


def _part(rows: Rows, index: int) -> Rows:
    return lambda x: rows(x)[index]


def _on_tensors(function: object, name: str, probe: Tensor, of: str) -> Rows:
    """A function of tensors or arrays (n, ...) as a function of float64 tensors, with float64 results, on the CPU.

    It is tried on tensors that require a gradient, which a function of arrays refuses.
    """
    if not callable(function):
        raise UsageError(f"{name} must be a module or a function, got {type(function).__name__}")
    owner = _owner(function)
    parameters = [*owner.parameters()] if isinstance(owner, nn.Module) else []
    device = parameters[0].device if parameters else torch.device("cpu")
    widths = [parameters[0].dtype] if parameters else [torch.float64, torch.float32]

    def on_tensors(width: torch.dtype) -> Rows:
        return lambda rows: _back(function(rows.to(device, width)), Tensor)

    def on_arrays(width: torch.dtype) -> Rows:
        return lambda rows: _back(function(rows.detach().to(width).numpy()), np.ndarray)

    failed = {}
    for kind, wrapped in (("tensors", on_tensors), ("arrays", on_arrays)):
        for width in widths if kind == "tensors" or not parameters else ():
            tried = wrapped(width)
            try:
                with torch.enable_grad():
                    tried(probe.clone().requires_grad_())
            except Exception as error:  # the user's code may raise anything
                failed[kind] = f"on {kind} {describe(error)}"
            else:
                return tried
    raise UsageError(f"{name} does not take {of}: {'; '.join(failed.values())}")


def _back(found: Any, kind: type) -> Any:
    """What a function gives, or each part of it, as a float64 tensor on the CPU."""
    if isinstance(found, tuple | list):
        return tuple(_back(part, kind) for part in found)
    if not isinstance(found, kind):
        raise TypeError(f"it gives {type(found).__name__}, expected {kind.__name__}")
    if found.is_complex() if isinstance(found, Tensor) else np.iscomplexobj(found):  # type: ignore[arg-type]
        raise TypeError("it gives complex numbers")
    return found.double().cpu() if isinstance(found, Tensor) else torch.from_numpy(np.asarray(found, dtype=np.float64))


def _check(name: str, rows: Rows, probe: Tensor, width: int, of: str) -> None:
    """Refuse a function of rows whose result has another shape, is not finite, or depends on other rows or on chance.

    Raises:
        UsageError: If it is one of these.
    """
    found, expected = rows(probe), (len(probe), width)
    if not isinstance(found, Tensor) or found.shape != expected:
        got = _shape(found)
        raise UsageError(f"{name} gives {got} for {len(probe)} rows, expected shape {expected} from {of}")
    if not torch.isfinite(found).all():
        raise UsageError(f"{name} gives values that are not finite")
    again = rows(probe[:FIRST_PROBES])
    if not torch.allclose(again, found[:FIRST_PROBES], rtol=SAME, atol=SAME * float(found.abs().mean())):
        raise UsageError(f"{name} gives other values for the same row in another call; is a module in training mode?")


def _shape(found: object) -> str:
    return f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"

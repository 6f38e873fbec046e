"""log p(x) of a model that was trained anywhere, as a Python function."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.common.errors import UsageError, describe, unknown
from bench.common.text import plain
from bench.metrics.laplace import LaplaceMixture
from bench.metrics.likelihood import by_quadrature, encoded, estimated, precisest_of
from bench.metrics.measurement import Measurement, mean
from datasets.quadrature import log_marginal
from methods import likelihoods
from methods.common.posteriors import Gaussian
from methods.contract.method import Fitted, Posterior
from methods.likelihoods import DISCRETE, FAMILIES, Likelihood

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

ELBO_DRAWS = 64
PROBES = 8
FIRST_PROBES = 3
SAME = 1e-3
DIFFERENCE = 1e-3
MOST_DIMENSIONS = 1000
MOST_ERROR = 0.1  # of a value, or of a nat: a larger one tells nothing
FAR_CODES = 6.0
FAR = "rows are far from all that decode gives, in units of the noise; check their scale and the noise variance"

Rows = Callable[[Tensor], Any]


@dataclass(frozen=True, eq=False, repr=False)
class Score:
    """log p(x) of the rows of x under a model, in nats.

    Args:
        log_p: log p(x) of each row, (n,).
        error: The numerical error of each value for a quadrature, the standard error for random draws, (n,).
        bias: The systematic part of the error, (n,): the numerical error, or by how much the log of a random estimate
            is too low on average.
        elbo: The ELBO of each row under the given posterior, (n,), by a mean over 64 draws; None without a posterior.
        method: The estimator that was used.
        diagnostics: Numbers that show whether it worked, by name, as in docs/measures.md.
    """

    log_p: np.ndarray
    error: np.ndarray
    bias: np.ndarray
    elbo: np.ndarray | None
    method: str
    diagnostics: Mapping[str, float]

    @property
    def mean(self) -> float:
        """The mean of log p(x) over rows."""
        return self._mean(self.log_p).value

    @property
    def stderr(self) -> float:
        """The standard error of the mean: sampling of the rows and bias in quadrature. NaN for a single row."""
        return self._mean(self.log_p).stderr

    @property
    def inference_gap(self) -> Measurement | None:
        """The mean of log p(x) - ELBO = KL(q(z | x) || p(z | x)), with its standard error; None without a posterior."""
        return None if self.elbo is None else self._mean(self.log_p - self.elbo, "inference_gap")

    def to_frame(self) -> pd.DataFrame:
        """One row for each row of x: log_p, error, and elbo if a posterior was given."""
        import pandas as pd

        columns = {"log_p": self.log_p, "error": self.error}
        return pd.DataFrame(columns if self.elbo is None else {**columns, "elbo": self.elbo})

    def _mean(self, each: np.ndarray, metric: str = "log_p") -> Measurement:
        return mean(metric, torch.from_numpy(each), torch.from_numpy(self.bias))

    def __repr__(self) -> str:
        lines = {"mean log p(x)": f"{self.mean:.4f} ± {self.stderr:.2g} nats"}
        if self.elbo is not None and (gap := self.inference_gap) is not None:
            lines["mean ELBO"] = f"{self.elbo.mean():.4f} nats"
            lines["inference gap"] = f"{gap.value:.4f} ± {gap.stderr:.2g} nats"
        lines |= {name: f"{value:.2g}" for name, value in self.diagnostics.items()}
        return f"{len(self.log_p)} rows by {self.method}" + "".join(f"\n  {k:<24} {v}" for k, v in lines.items())


def score(
    decode: Callable[[Any], Any],
    x: Any,
    *,
    latent_dim: int,
    noise_variance: ArrayLike | None = None,
    likelihood: str = "gaussian",
    posterior: Posterior | Callable[[Any], Any] | None = None,
    seed: int = 0,
) -> Score:
    """log p(x) under z ~ N(0, I_L), x | z ~ p(x | decode(z)), of a model that was trained anywhere.

    For L <= 2 and D <= 100 it is found by adaptive quadrature. Else it is estimated by importance sampling from a
    mixture that is fitted to each row, and from the given posterior, and checked by annealed importance sampling:
    docs/measures.md. The posterior's ELBO and inference gap are found too.

    A torch module, or a method of one, is used in evaluation mode, where its parameters are. A function takes tensors
    or numpy arrays, of 64 or of 32 bits; which of them is tried out. Where it has no gradient, differences replace it.

    Args:
        decode: The mean of x given z, (m, L) -> (m, D): a module, or a function of tensors or of arrays. It gives the
            logits of binary data, and the log rates of counts.
        x: Points, (n, D), in the units of the decoder's output: a tensor, an array or a frame.
        latent_dim: L, the dimension of z.
        noise_variance: s2 of a Gaussian, in squared units of x: a number, or one for each coordinate, (D,).
        likelihood: The family of p(x | z): "gaussian", "bernoulli" or "poisson".
        posterior: q(z | x), as a `methods.contract.method.Posterior`, or as the encoder of a diagonal Gaussian,
            (n, D) -> the mean, (n, L), and the log of the standard deviation, (n, L).
        seed: The seed of all random draws.

    Raises:
        bench.common.errors.UsageError: For arguments that do not fit, and for a log p(x) that is not finite.
    """
    latent, seed = _whole("latent_dim", latent_dim, 1, MOST_DIMENSIONS), _whole("seed", seed, 0, 2**63 - 1)
    points = _points(x)
    family = _family(likelihood, noise_variance, points.shape[1])
    if refused := family.refuse(points):
        raise UsageError(f"x cannot be {family.name}: {refused}")
    with _evaluating(decode, posterior), torch.no_grad(), _enough_memory(latent):
        model = _Model(_decoder(decode, latent, points.shape[1]), family)
        q = None if posterior is None else _posterior(posterior, points, latent)
        elbo = None if q is None else encoded(Fitted(model, q), points, ELBO_DRAWS, seed).elbo
        if by_quadrature(latent, points.shape[1]):
            found = log_marginal(model.decode, family, points, latent)
            value, error, bias, method = found.value, found.error, found.error, "adaptive quadrature"
            diagnostics = {"numerical_error": float(found.error.mean())}
            _check_converged(value, error)
        else:
            value, error, bias, method, diagnostics = _sampled(model, q, points, latent, seed)
        _check_finite("log p(x)", value, lambda: _why_not_finite(model, latent))
        if elbo is not None:
            _check_finite(
                "the ELBO", elbo, lambda: "the posterior's codes are not finite, or explain the rows too badly"
            )
    arrays = (value.numpy(), error.numpy(), bias.numpy(), None if elbo is None else elbo.numpy())
    return Score(*arrays, method, diagnostics)


def _check_finite(name: str, values: Tensor, why: Callable[[], str]) -> None:
    if broken := int((~torch.isfinite(values)).sum()):
        raise UsageError(f"{name} is not finite for {broken} of {len(values)} rows: {why()}")


def _check_converged(value: Tensor, error: Tensor) -> None:
    """Refuse a quadrature whose error says that its value tells nothing. Errors of random draws are for the reader."""
    if unsure := int((error > MOST_ERROR * value.abs().clamp(min=1)).sum()):
        raise UsageError(
            f"log p(x) is not found for {unsure} of {len(value)} rows: the adaptive quadrature is wrong by up to "
            f"{float(error.max()):.2g} nats; perhaps {FAR}"
        )


def _why_not_finite(model: _Model, latent_dim: int) -> str:
    """Why log p(x) of some rows is not finite: because of the decoder, or else of what the rows are."""
    z = FAR_CODES * torch.cat([sign * torch.eye(latent_dim, dtype=torch.float64) for sign in (-1, 1)])
    z = torch.cat([z, z / 2])
    broken = ~torch.isfinite(model.decode(z)).all(1)
    if broken.any():
        return f"decode gives values that are not finite, as at z = {z[broken][-1].tolist()}"
    return FAR


@contextmanager
def _enough_memory(latent_dim: int) -> Iterator[None]:
    """A context in which a lack of memory is told as one."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "allocate" in str(error):
            raise UsageError(f"latent_dim={latent_dim} needs more memory than there is: {describe(error)}") from None
        raise


def _sampled(
    model: _Model, posterior: Posterior | None, x: Tensor, latent_dim: int, seed: int
) -> tuple[Tensor, Tensor, Tensor, str, dict[str, float]]:
    """log p(x) by random draws: value, standard error and bias, (n,) each, the estimator and its diagnostics."""
    proposals = {"a mixture fitted to each row": LaplaceMixture(model, latent_dim), "the posterior": posterior}
    given = {name: each for name, each in proposals.items() if each is not None}
    found = estimated(model, [*given.values()], x, latent_dim, seed, precisest_of)
    likelihood, chosen = found.likelihood, found.proposal
    method = "annealed importance sampling" if chosen is None else f"importance sampling from {[*given][chosen]}"
    if posterior is None:
        del likelihood.diagnostics["laplace_less_importance"]  # of the mixture and itself
    return likelihood.value, found.estimate.error, likelihood.error, method, likelihood.diagnostics


@dataclass(frozen=True)
class _Model:
    """A generative model with codes of any shape (..., L), of a decoder of rows."""

    rows: Rows
    likelihood: Likelihood

    def decode(self, z: Tensor) -> Tensor:
        """The outputs that p(x | z) depends on: (..., L) -> (..., D)."""
        found = self.rows(z.flatten(0, -2)).unflatten(0, z.shape[:-1])
        return found if self.likelihood.scale is None else self.likelihood.outputs(found)


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


@contextmanager
def _evaluating(*functions: object) -> Iterator[None]:
    """A context in which the modules behind functions are in evaluation mode."""
    owners = [owner for owner in map(_owner, functions) if isinstance(owner, nn.Module)]
    training = [part for owner in owners for part in owner.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


def _decoder(decode: object, latent_dim: int, data_dim: int) -> Rows:
    """The decoder as a function of codes (m, L), float64, on the CPU, with a gradient."""
    z = torch.randn(PROBES, latent_dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = _on_tensors(decode, "decode", z, f"codes of shape {tuple(z.shape)}, for latent_dim={latent_dim}")
    _check("decode", rows, z, data_dim, f"the columns of x, {data_dim}")
    with torch.enable_grad():
        codes = z.clone().requires_grad_()
        found = rows(codes)
        smooth = found.requires_grad and torch.autograd.grad(found.sum(), codes, allow_unused=True)[0] is not None
    return rows if smooth else lambda codes: _Differenced.apply(codes, rows)


def _posterior(posterior: object, x: Tensor, latent_dim: int) -> Posterior:
    """The posterior, or the diagonal Gaussian of an encoder."""
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


def _family(name: object, noise_variance: object, data_dim: int) -> Likelihood:
    """The family of p(x | z); raises UsageError for an unknown one, or a noise variance that does not fit."""
    if name not in FAMILIES:
        raise unknown("likelihood", str(name), FAMILIES)
    if name not in DISCRETE:
        found = _variances(noise_variance, data_dim)
        return likelihoods.Gaussian(float(found)) if found.dim() == 0 else likelihoods.PerCoordinateGaussian(found)
    if noise_variance is not None:
        raise UsageError(f"likelihood {name!r} has no noise_variance, got {plain(repr(noise_variance), 100)}")
    return DISCRETE[str(name)]


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


def _whole(name: str, value: object, least: int, most: int) -> int:
    """A whole number, checked."""
    try:
        found = least - 1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        found = least - 1
    if not least <= found <= most:
        raise UsageError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
    return found


def _real(value: Any, kinds: str) -> np.ndarray:
    """Real numbers as float64; raises TypeError for what is of another kind, such as text and dates."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value if value.is_complex() else value.double()  # numpy does not know all kinds of torch
    array = np.asarray(value)
    if array.dtype.kind not in kinds:
        raise TypeError(f"it holds {array.dtype}, expected real numbers")
    return array.astype(np.float64)


def _points(x: Any) -> Tensor:
    """x as a float64 matrix on the CPU, checked."""
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

"""log p(x) of a model that was trained anywhere, as a Python function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.common.errors import UsageError, describe
from bench.metrics.laplace import LaplaceMixture
from bench.metrics.likelihood import by_quadrature, encoded, estimated, precisest_of
from bench.metrics.measurement import Measurement, mean
from bench.scoring.arguments import MOST_DIMENSIONS, family_of, points_of, whole_number
from bench.scoring.functions import Rows, decoder, evaluating, posterior_of
from datasets.quadrature import log_marginal
from methods.contract.method import Fitted, Posterior
from methods.likelihoods import Likelihood

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

ELBO_DRAWS = 64
MOST_ERROR = 0.1  # of a value, or of a nat: a larger one tells nothing
FAR_CODES = 6.0
FAR = "rows are far from all that decode gives, in units of the noise; check their scale and the noise variance"


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
    latent, seed = whole_number("latent_dim", latent_dim, 1, MOST_DIMENSIONS), whole_number("seed", seed, 0, 2**63 - 1)
    points = points_of(x)
    family = family_of(likelihood, noise_variance, points.shape[1])
    if refused := family.refuse(points):
        raise UsageError(f"x cannot be {family.name}: {refused}")
    with evaluating(decode, posterior), torch.no_grad(), _enough_memory(latent):
        model = _Model(decoder(decode, latent, points.shape[1]), family)
        q = None if posterior is None else posterior_of(posterior, points, latent)
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

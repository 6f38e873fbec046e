"""What is measured of a fitted model. Values are in nats per datum, with standard errors over the test points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.base import Problem
from datasets.quadrature import LogProb, log_marginal, normal_codebook
from methods.base import DecoderModel, Fitted
from methods.model import gaussian_log_prob, standard_normal_log_prob

TOLERANCE = 1e-3
DRAWS = 16
POINTS_AT_ONCE = 500
DENSITY_CODES = 4096


class NotFiniteError(Exception):
    """A fitted model whose score is not a finite number."""


@dataclass(frozen=True)
class Measurement:
    """One value of one metric, with its standard error, both in `unit`."""

    metric: str
    value: float
    stderr: float
    unit: str = "nats"


def log_prob(model: DecoderModel, x: Tensor, latent_dim: int, tolerance: float = TOLERANCE) -> LogProb:
    """log p(x) under a learned model for x (n, D), by the quadrature that also scores the true one."""
    return log_marginal(lambda z: model.decode(z).double().cpu(), model.variance(), x, latent_dim, tolerance)


class Evaluator:
    """Scores models on the test set of one problem; draws from a generator of its own, anew for each model."""

    def __init__(self, problem: Problem, test: Tensor, seed: int, device: str = "cpu"):
        self.problem, self.test, self.seed, self.device = problem, test, seed, device
        self.truth = problem.log_prob(test, TOLERANCE)

    def __call__(self, fitted: Fitted) -> list[Measurement]:
        """test_ll, oracle_gap, elbo and inference_gap.

        Raises NotFiniteError if one of them is not a finite number.
        """
        with torch.no_grad():
            learned = self._log_prob(fitted.model)
            bound = self.elbo(fitted)
        found = [
            _mean("test_ll", learned.value, learned.error),
            _mean("oracle_gap", self.truth.value - learned.value, self.truth.error + learned.error),
            _mean("elbo", bound, torch.zeros_like(bound)),
            _mean("inference_gap", learned.value - bound, learned.error),
        ]
        for measurement in found:
            if not math.isfinite(measurement.value):
                raise NotFiniteError(f"{measurement.metric} is {measurement.value}")
        return found

    def _log_prob(self, model: DecoderModel) -> LogProb:
        if isinstance(model, TrueModel):
            return self.truth
        probe = model.decode(torch.zeros(1, self.problem.latent_dim, dtype=torch.float64))
        if not torch.isfinite(probe).all() or not math.isfinite(model.variance()):
            raise NotFiniteError("the decoder gives values that are not finite")
        return log_prob(model, self.test, self.problem.latent_dim)

    def elbo(self, fitted: Fitted) -> Tensor:
        """E_q [log p(x | z) + log p(z) - log q(z | x)] for each test point, (n,), from 16 draws of z each."""
        generator = torch.Generator(self.device).manual_seed(self.seed)
        return torch.cat([self._elbo(fitted, x, generator) for x in self.test.split(POINTS_AT_ONCE)])

    def _elbo(self, fitted: Fitted, x: Tensor, generator: torch.Generator) -> Tensor:
        z, log_q = fitted.posterior.sample(x.to(self.device), DRAWS, generator)
        residual = x - fitted.model.decode(z).double().cpu()
        log_noise = torch.tensor(math.log(fitted.model.variance()), dtype=torch.float64)
        log_joint = gaussian_log_prob(residual, log_noise) + standard_normal_log_prob(z.double()).cpu()
        return (log_joint - log_q.double().cpu()).mean(0)


@dataclass(frozen=True)
class TrueModel:
    """A problem's own model, for the methods that are handed the truth."""

    problem: Problem

    def decode(self, z: Tensor) -> Tensor:
        """The mean of x given z: (..., L) -> (..., D)."""
        return self.problem.decoder(z.double())

    def variance(self) -> float:
        """The noise variance s2."""
        return self.problem.noise


def _mean(metric: str, each: Tensor, numerical_error: Tensor) -> Measurement:
    """The mean over test points; its standard error adds, in quadrature, sampling and numerical error."""
    sampling = float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else math.nan
    return Measurement(metric, float(each.mean()), math.hypot(sampling, float(numerical_error.mean())))


def density_grid(model: DecoderModel, latent_dim: int, low: Tensor, high: Tensor, points: int) -> list[list[float]]:
    """Rows (x1, x2, log p(x)) on a square grid of the plane between two corners, to look at.

    p(x) is the mean of N(x; f(z), s2 I) over codes spread evenly under the prior: right where there is any to see, and
    unlike the quadrature indifferent to the relative error where there is none.
    """
    axes = [torch.linspace(float(a), float(b), points, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    grid = torch.cartesian_prod(*axes)
    with torch.no_grad():
        centres = model.decode(normal_codebook(DENSITY_CODES, latent_dim)).double().cpu()
    log_noise = torch.tensor(math.log(model.variance()), dtype=torch.float64)
    constant = gaussian_log_prob(torch.zeros(1, 2, dtype=torch.float64), log_noise) - math.log(DENSITY_CODES)
    exponents = (torch.cdist(part, centres).square() / (-2 * model.variance()) for part in grid.split(512))
    value = torch.cat([torch.logsumexp(part, 1) for part in exponents]) + constant
    return torch.cat([grid, value[:, None]], 1).tolist()

"""The check of the optimum on probabilistic PCA, whose maximum likelihood is known (Tipping & Bishop 1999)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from scipy.stats import multivariate_normal

from bench.check.errors import FailedError
from bench.check.method_under_test import MethodUnderTest
from bench.check.short_fit import Limit, ShortFit
from datasets.base import stream
from methods.contract.decoder import build_model
from methods.contract.method import DecoderModel, Fitted, likelihood_of

DATASETS = tuple(f"linear_gaussian[latent_dim={latent},data_dim=4,noise_variance=0.5]" for latent in (2, 1, 3))
N_TRAIN = 500
WHOLE = Limit(flops=math.inf, seconds=30)
YIELDS_BETWEEN = 25
TOLERANCE, ROUNDING = 0.02, 1e-6


def optimum(under_test: MethodUnderTest) -> str:
    """With a linear decoder and known noise, the method reaches the maximum likelihood and never exceeds it.

    Args:
        under_test: The method.

    Returns:
        What was seen.

    Raises:
        FailedError: If the likelihood ends too low, or is ever too high.
    """
    fit = linear_fit(under_test)
    x, latent = fit.task.train.double().numpy(), fit.problem.latent_dim
    highest, values = highest_likelihood(x, latent, float(fit.problem.likelihood.dispersion)), []

    def look(number: int, fitted: Fitted) -> None:
        if number % YIELDS_BETWEEN == 0:
            values.append(linear_likelihood(fitted.model, x, latent))

    last = linear_likelihood(fit.run(WHOLE, look).model, x, latent)
    excess, short = max(*values, last, -math.inf) - highest, highest - last
    if excess > ROUNDING:
        raise FailedError(f"the likelihood exceeds its maximum by {excess:.2g} nats; expected {ROUNDING:g} at most")
    if not short < TOLERANCE:
        raise FailedError(f"ends {short:.4f} nats below the maximum likelihood; expected {TOLERANCE} at most")
    return f"ends {max(short, 0.0):.1e} nats below the maximum likelihood, and is never above it"


def linear_fit(under_test: MethodUnderTest) -> ShortFit:
    """A fit of a model with a linear decoder that has not started yet."""
    fit = under_test.fit(under_test.accepted(*DATASETS, n_train=N_TRAIN)[0], n_train=N_TRAIN)
    weights = stream("initial weights", 0, "decoder")
    model = build_model(
        fit.task.train, fit.problem.latent_dim, fit.problem.noise_variance, weights, activation="linear"
    )
    fit.ledger.watch(decoder=model.network)
    return dataclasses.replace(fit, task=dataclasses.replace(fit.task, model=model))


def highest_likelihood(x: np.ndarray, latent_dim: int, noise_variance: float) -> float:
    """The maximum over W and m of the mean log-likelihood under x = W z + m + noise.

    W = U (Lambda - s2 I)^(1/2), where U and Lambda are the first eigenvectors and eigenvalues of the covariance of x,
    and m is the mean of x (Tipping & Bishop 1999, eq. 7). Directions with eigenvalues below s2 are left out of W.

    Args:
        x: Data, (N, D).
        latent_dim: L, the dimension of z.
        noise_variance: s2, in squared data units.

    Returns:
        Nats for each point.
    """
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    values[:-latent_dim] = noise_variance
    return _likelihood(x, x.mean(0), (vectors * values.clip(noise_variance)) @ vectors.T)


@torch.no_grad()
def linear_likelihood(model: DecoderModel, x: np.ndarray, latent_dim: int) -> float:
    """The mean log-likelihood under a model with a linear decoder.

    Args:
        model: The model.
        x: Data, (N, D).
        latent_dim: L, the dimension of z.

    Returns:
        Nats for each point.
    """
    decoded = model.decode(torch.cat([torch.zeros(1, latent_dim), torch.eye(latent_dim)])).double().numpy()
    weight = (decoded[1:] - decoded[0]).T
    return _likelihood(x, decoded[0], weight @ weight.T + likelihood_of(model).dispersion * np.eye(len(weight)))


def _likelihood(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    return float(multivariate_normal(mean, covariance).logpdf(x).mean())

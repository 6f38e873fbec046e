"""The duty on the optimum: probabilistic PCA, where the maximum likelihood is known (Tipping & Bishop 1999)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from scipy.stats import multivariate_normal

from bench.check.errors import FailedError
from bench.check.method_under_test import Subject
from bench.check.short_fit import Limit, Trial
from datasets.base import stream
from methods.contract.decoder import build_model
from methods.contract.method import DecoderModel, Fitted

DATASETS = tuple(f"linear_gaussian[latent_dim={latent},data_dim=4,noise=0.5]" for latent in (2, 1, 3))
SIZE = 500
WHOLE = Limit(flops=math.inf, seconds=30)
EVERY = 25
NEAR, ROUNDING = 0.02, 1e-6


def optimum(subject: Subject) -> str:
    """With a linear decoder and known noise the maximum likelihood is reached, and never exceeded."""
    trial = linear_trial(subject)
    x, latent = trial.task.train.double().numpy(), trial.problem.latent_dim
    highest, values = highest_likelihood(x, latent, trial.problem.noise), []

    def look(number: int, fitted: Fitted) -> None:
        if number % EVERY == 0:
            values.append(linear_likelihood(fitted.model, x, latent))

    last = linear_likelihood(trial.drive(WHOLE, look).model, x, latent)
    excess, short = max(*values, last, -math.inf) - highest, highest - last
    if excess > ROUNDING:
        raise FailedError(f"the likelihood exceeds its maximum by {excess:.2g} nats; expected {ROUNDING:g} at most")
    if not short < NEAR:
        raise FailedError(f"ends {short:.4f} nats below the maximum likelihood; expected {NEAR} at most")
    return f"ends {max(short, 0.0):.1e} nats below the maximum likelihood, and is never above it"


def linear_trial(subject: Subject) -> Trial:
    """A fit of a model whose decoder is linear, not yet begun."""
    trial = subject.trial(subject.accepted(*DATASETS, size=SIZE)[0], size=SIZE)
    weights = stream("initial weights", 0, "decoder")
    model = build_model(trial.task.train, trial.problem.latent_dim, trial.problem.noise, weights, (), "linear")
    trial.ledger.watch(decoder=model.network)
    return dataclasses.replace(trial, task=dataclasses.replace(trial.task, model=model))


def highest_likelihood(x: np.ndarray, latent_dim: int, noise: float) -> float:
    """The greatest mean log-likelihood of data x (N, D) under W z + m with noise s2, over all W and m, in nats.

    By W = U (Lambda - s2 I)^(1/2), U and Lambda the first eigenvectors and eigenvalues of the covariance of x, and m
    its mean (Tipping & Bishop 1999, eq. 7), an eigenvalue below s2 standing for none.
    """
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    values[:-latent_dim] = noise
    return _likelihood(x, x.mean(0), (vectors * values.clip(noise)) @ vectors.T)


@torch.no_grad()
def linear_likelihood(model: DecoderModel, x: np.ndarray, latent_dim: int) -> float:
    """The mean log-likelihood of data x (N, D) under a model whose decoder is linear, in nats."""
    decoded = model.decode(torch.cat([torch.zeros(1, latent_dim), torch.eye(latent_dim)])).double().numpy()
    weight = (decoded[1:] - decoded[0]).T
    return _likelihood(x, decoded[0], weight @ weight.T + model.variance() * np.eye(len(weight)))


def _likelihood(x: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    return float(multivariate_normal(mean, covariance).logpdf(x).mean())

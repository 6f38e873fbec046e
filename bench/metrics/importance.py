"""log p(x) of a latent-variable model by importance sampling, with diagnostics of the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.contract.decoder import standard_normal_log_prob
from methods.contract.method import DecoderModel, Posterior, likelihood_of

ROWS_AT_ONCE = 65_536
VALUES_AT_ONCE = 8_000_000
LEAST_TAIL = 5
EQUAL_TO = 1e-4
SMALLEST = -700.0


@dataclass(frozen=True)
class Estimate:
    """An estimate of log p(x) in nats from random weights w whose expectation is p(x). All fields are (n,), float64.

    Args:
        value: The log of the mean weight. In expectation it is below log p(x), by about error^2 / 2.
        error: Its standard error.
        ess: The effective sample size, (sum w)^2 / sum w^2.
        khat: The Pareto shape of the weights' tail, NaN if unknown. Above 0.7 neither value nor error can be trusted
            (Vehtari et al. 2024). Below 0.7 the proposal may still miss whole modes.
    """

    value: Tensor
    error: Tensor
    ess: Tensor
    khat: Tensor


def importance_log_prob(
    model: DecoderModel, posterior: Posterior, x: Tensor, draws: int, generator: torch.Generator
) -> Estimate:
    """log (1/K) sum_k p(x, z_k) / q(z_k | x) with z_k ~ q(z | x) (Burda et al. 2016, eq. 8).

    The weights are not smoothed, so their mean is an unbiased estimate of p(x). Draws are made on the generator's
    device, decoded on the model's device, and returned on the CPU.

    Args:
        model: The generative model.
        posterior: The proposal q(z | x).
        x: Points, (n, D).
        draws: K, the number of draws for each point.
        generator: The source of the draws.

    Raises:
        ValueError: If there are fewer than 2 draws.
    """
    if draws < 2:
        raise ValueError(f"importance sampling needs at least 2 draws for an error, got {draws}")
    with torch.no_grad():
        parts = []
        rows = min(ROWS_AT_ONCE, VALUES_AT_ONCE // x.shape[1])
        for group in x.to(generator.device).split(max(1, rows // draws)):
            z, log_q = posterior.sample(group, draws, generator)
            log_weight = _log_joint(model, group, z) - log_q.double().to(device_of(model))
            parts.append(summarise(log_weight, pareto_shape(log_weight)))
        return collect(parts)


def device_of(model: DecoderModel) -> torch.device:
    """The device of a model's parameters; the CPU for a model without parameters.

    Args:
        model: The generative model; if it is no `nn.Module`, it counts as one without parameters.
    """
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return next((parameter.device for parameter in parameters), torch.device("cpu"))


def _log_joint(model: DecoderModel, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) in nats, float64, on the model's device: x (n, D), z (K, n, L) -> (K, n)."""
    x, z = x.to(device_of(model)), z.to(device_of(model))
    return log_likelihood(model, x, z) + standard_normal_log_prob(z.double())


def log_likelihood(model: DecoderModel, x: Tensor, z: Tensor) -> Tensor:
    """log p(x | z) in nats, float64: x (..., D), z (..., L) -> (...).

    Args:
        model: The generative model.
        x: Points in data units, (..., D), on the model's device.
        z: Codes, (..., L). Leading dimensions of x and z are broadcast.
    """
    return likelihood_of(model).log_prob(x.double(), model.decode(z).double())


def summarise(log_weight: Tensor, khat: Tensor) -> Estimate:
    """The log of the mean weight, its standard error by the delta method, and the effective sample size.

    Args:
        log_weight: Log weights of K draws, (K, n).
        khat: The Pareto shape of their tail, (n,).
    """
    largest = log_weight.amax(0)
    relative = (log_weight - largest).exp()
    mean = relative.mean(0)
    error = relative.std(0) / mean / math.sqrt(len(log_weight))
    ess = relative.sum(0).square() / relative.square().sum(0)
    return Estimate(largest + mean.log(), error, ess, khat)


def collect(parts: list[Estimate]) -> Estimate:
    """The estimates of several groups of points as one estimate, on the CPU.

    Args:
        parts: The estimate of each group, in the order of the points; at least one.

    Returns:
        The estimate of all points, (n,).
    """
    columns = zip(*((part.value, part.error, part.ess, part.khat) for part in parts), strict=True)
    return Estimate(*(torch.cat(column).cpu() for column in columns))


def pareto_shape(log_weight: Tensor) -> Tensor:
    """Shape k of the generalised Pareto distribution of the largest weights (Vehtari et al. 2024).

    The tail is the min(K / 5, 3 sqrt(K)) largest weights. k is 0 where these are equal up to 1e-4, infinite where too
    few of them differ from 0, and NaN where the tail has fewer than 5.

    Args:
        log_weight: Log weights of K draws, (K, n).

    Returns:
        k of each point, (n,).
    """
    tail = math.ceil(min(len(log_weight) / 5, 3 * math.sqrt(len(log_weight))))
    if tail < LEAST_TAIL:
        return torch.full_like(log_weight[0], math.nan)
    largest = log_weight.T.topk(tail + 1).values.flip(1)  # ascending
    largest = (largest - largest[:, -1:]).clamp(min=SMALLEST)
    cutoff, tail_weight = largest[:, :1], largest[:, 1:]
    shape = _generalised_pareto_shape(tail_weight.exp() * -torch.expm1(cutoff - tail_weight))
    shape = torch.where(shape.isnan() & ~cutoff[:, 0].isnan(), math.inf, shape)
    return torch.where(cutoff[:, 0] > -EQUAL_TO, 0.0, shape)


# Pyro's fit_generalized_pareto takes one point at a time, and its last digits differ from those of stored studies.
def _generalised_pareto_shape(excess: Tensor) -> Tensor:
    """Shape of the generalised Pareto distribution of each row of (n, M), ascending: (n,).

    The estimator of Zhang & Stephens (2009) with the prior of Vehtari et al. (2024): ten observations of k = 1/2.
    """
    count = excess.shape[1]
    grid = 30 + int(math.sqrt(count))
    spread = 1 - torch.sqrt(grid / (torch.arange(grid, dtype=excess.dtype, device=excess.device) + 0.5))
    quartile = excess[:, int(count / 4 + 0.5) - 1, None]
    theta = 1 / excess[:, -1:] + spread / (3 * quartile)
    shape = torch.log1p(-theta[..., None] * excess[:, None]).mean(-1)
    weight = torch.softmax(count * (torch.log(-theta / shape) - shape - 1), 1)
    mean = (weight * theta).sum(1, keepdim=True)
    return (torch.log1p(-mean * excess).sum(1) + 5) / (count + 10)

"""How a posterior uses its codes: what they tell of x, in how many dimensions, and how far they are from the prior.

The KL divergence from the prior is the mutual information plus KL(q(z) || p(z)) (Hoffman & Johnson 2016). At posterior
collapse all three are zero.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.special import ndtr

from bench.metrics.likelihood import Encoded
from bench.metrics.measurement import Measurement, mean, standard_error
from methods.common.posteriors import information
from methods.contract.method import Posterior

INFORMATION_POINTS = 500
ACTIVE = 0.01


def code_use(posterior: Posterior, x: Tensor, codes: Encoded) -> list[Measurement]:
    """mutual_information, active_units and kl_to_prior.

    Args:
        posterior: q(z | x).
        x: Points, (n, D).
        codes: What draws of q(z | x) say of them.

    Returns:
        The measurements, without mutual_information for a posterior without `log_prob`.
    """
    return [
        *_mutual_information(posterior, x[:INFORMATION_POINTS], codes.code[:INFORMATION_POINTS]),
        _active_units(codes.mean, codes.mean_variance),
        mean("kl_to_prior", codes.kl_to_prior),
    ]


def _mutual_information(posterior: Posterior, x: Tensor, code: Tensor) -> list[Measurement]:
    """The mean over x of log q(z | x) - log q(z), with one code z of each x."""
    log_q = posterior.log_prob(code, x)
    if log_q is None:
        return []
    return [mean("mutual_information", information(log_q.double().cpu()))]


def _active_units(means: Tensor, noise: Tensor) -> Measurement:
    """The number of dimensions in which E_q [z] varies over x by more than 0.01 (Burda et al. 2016).

    The variance of estimated means is too high by their own mean variance, which is subtracted. The standard error is
    that of a sum of independent yes-or-no answers, each yes with the probability that its variance, with normal error,
    is above 0.01.

    Args:
        means: E_q [z] of each x, (n, L).
        noise: The variances of these estimates, (n, L).
    """
    each = (means - means.mean(0)).square() - noise * (1 - 1 / len(means))
    variance = each.mean(0)
    error = torch.tensor([standard_error(dimension) for dimension in each.T], dtype=each.dtype)
    active = ndtr((variance - ACTIVE) / error)
    doubt = float((active * (1 - active)).sum().sqrt())
    return Measurement("active_units", float((variance > ACTIVE).sum()), doubt, "dimensions")

"""Reweighted wake-sleep: decoder and encoder raise different objectives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from methods.common.posteriors import Gaussian
from methods.common.training import Objective
from methods.contract.decoder import GenerativeModel, standard_normal_log_prob
from methods.iwae import IWAE, log_mean_exp


def reweighted(model: GenerativeModel, posterior: Gaussian, x: Tensor, noise: Tensor) -> Objective:
    """The importance weighted bound, and sum_k v_k (log p(x, z_k) + log q(z_k | x)) as its surrogate.

    The draws z_k and their normalised weights v_k have no gradient (Bornschein & Bengio 2015, algorithm 1). So the
    encoder lowers KL(p(z | x) || q), and not KL(q || p) as by the bound.

    Args:
        model: The generative model.
        posterior: q(z | x).
        x: Data, (n, D).
        noise: Standard normal draws, (K, n, L).
    """
    mean, log_scale = posterior.moments(x)
    z = (mean + log_scale.exp() * noise).detach()
    log_q = standard_normal_log_prob((z - mean) * (-log_scale).exp()) - log_scale.sum(-1)
    log_p = model.log_likelihood(x, z) + standard_normal_log_prob(z)
    log_weights = (log_p - log_q).detach()
    return Objective(log_mean_exp(log_weights), (torch.softmax(log_weights, 0) * (log_p + log_q)).sum(0))


@dataclass(frozen=True)
class WakeSleep(IWAE):
    """Reweighted wake-sleep with wake steps of decoder and encoder (Bornschein & Bengio 2015, arXiv 1406.2751).

    Args:
        samples: K, number of codes per training point and step.
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Learning rate.
        schedule: 'anytime', or 'cosine' for ablation.
        steepness: Factor on the initial weights and biases of the decoder's first layer.
        restarts: Number of starts, of which the best after a tenth of the steps goes on.
    """

    colour_group: ClassVar[str] = ""
    estimator = staticmethod(reweighted)

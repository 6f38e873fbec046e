"""Deconvolution of binary data and counts: atoms are means, smoothed into the interior of what means can be.

An atom is the mean m_k of its n_k effective points under a conjugate prior that is worth `a` points at the mean m of
all data (Diaconis & Ylvisaker 1979, theorem 2):

    a_k = (n_k m_k + a m) / (n_k + a).

For a single point this is the kernel (x + a m) / (1 + a). Of binary data it is the kernel of Aitchison & Aitken (1976)
with m in place of 1/2. `a` is chosen by the leave-one-out likelihood of the kernels, so that the smoothing is empirical
Bayes. It takes the place of the variance s2 (1 + 1 / n_k) about an atom of Gaussian data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from methods.contract.method import Ledger
from methods.likelihoods import Likelihood
from methods.mapa import deconvolution

STRENGTHS = torch.logspace(-1.5, 1.5, 13, dtype=torch.float64)
FEW = 500


@dataclass(frozen=True)
class FamilyMixture:
    """An estimate of where the signals lie: a mixture of K members of a family for x.

    Args:
        atoms: The means a_k, (K, D), in data units.
        log_weight: The log-weights, (K,), up to a constant.
        likelihood: The family of p(x | k).
        middle: The mean m of all data, (D,).
        strength: a, in points.
        power: The power of p(x | k) in Bayes' rule. Below 1, kernels are wider.
    """

    atoms: Tensor
    log_weight: Tensor
    likelihood: Likelihood
    middle: Tensor
    strength: float
    power: float = 1.0

    def in_units(self, x: Tensor) -> Tensor:
        """Data or means where noise has the same variance everywhere: 2 sqrt(x) of counts, for example, (n, D)."""
        return self.likelihood.embed(self.likelihood.outputs(x))

    def log_posterior(self, x: Tensor) -> Tensor:
        """log p(k | x) by Bayes' rule, in nats: (n, D) -> (n, K)."""
        return torch.log_softmax(self.log_joint(x), 1)

    def log_joint(self, x: Tensor) -> Tensor:
        """log w_k p(x | k) up to a term in x, in nats: (n, D) -> (n, K)."""
        return self.log_weight + self.power * self.likelihood.compared(x, self.likelihood.outputs(self.atoms))

    def sharpened(self, x: Tensor, ledger: Ledger) -> FamilyMixture:
        """One step of expectation maximisation for the atoms, with their prior. The weights stay.

        Args:
            x: Data, (n, D).
            ledger: Where the work is accounted for.
        """
        return replace(self, atoms=self.with_prior(deconvolution.sums(self, x, ledger)))

    def with_prior(self, found: deconvolution.Sums) -> Tensor:
        """The atoms of data whose sums are given, (K, D): n_k / (n_k + a) of their mean, and a / (n_k + a) of m."""
        share = 1 / (1 + self.strength * found.single()[:, None])
        return self.middle + share * (found.means(self.atoms) - self.middle)


def estimate(
    x: Tensor, likelihood: Likelihood, kernel_width: float, smoothing: float, weight_steps: int
) -> FamilyMixture:
    """A mixture that estimates where the signals of data lie, as `deconvolution.estimate` does for Gaussian data.

    The atoms are not sharpened: with many coordinates, a step of expectation maximisation makes an atom its own point.

    Args:
        x: Data, (N, D), float64.
        likelihood: The family of p(x | z).
        kernel_width: The inverse of the power of p(x | k) in Bayes' rule.
        smoothing: The inverse of that power in the first kernel, in units of kernel_width. With 0 the atoms are the
            kernels of the data.
        weight_steps: Number of steps of expectation maximisation for the weights.
    """
    middle = likelihood.interior(x.mean(0), len(x))
    strength = _strength(x[:FEW], likelihood, middle)
    kernels = (x + strength * middle) / (1 + strength)
    mixture = FamilyMixture(kernels, x.new_zeros(len(x)), likelihood, middle, strength, 1 / kernel_width)
    if smoothing and len(x) > 1:
        wide = replace(mixture, power=1 / (smoothing * kernel_width))
        mixture = replace(mixture, atoms=_means_of_others(wide, x))
    joint, log_weight = mixture.log_joint(x), mixture.log_weight
    for _ in range(weight_steps):
        log_weight = torch.logsumexp(torch.log_softmax(joint + log_weight, 1), 0) - math.log(len(x))
    return replace(mixture, log_weight=log_weight)


def _means_of_others(mixture: FamilyMixture, x: Tensor) -> Tensor:
    """The mean of the other points that each kernel explains, with the prior, (N, D).

    A mean with the point itself would be the point, as its own kernel explains it far better than all others do.
    """
    own = torch.eye(len(x), dtype=torch.bool, device=x.device)
    p = torch.softmax(mixture.log_joint(x).masked_fill(own, -math.inf), 1)
    found = deconvolution.Sums(p.sum(0), p.square().sum(0), p.T @ x)
    return mixture.with_prior(found)


def _strength(x: Tensor, likelihood: Likelihood, middle: Tensor) -> float:
    """The strength of the prior at which kernels of the other points explain each point best; 1 for a single point."""
    if len(x) < 2:
        return 1.0
    own = torch.eye(len(x), dtype=torch.bool, device=x.device)
    values = []
    for strength in STRENGTHS.tolist():
        outputs = likelihood.outputs((x + strength * middle) / (1 + strength))
        others = likelihood.compared(x, outputs).masked_fill(own, -math.inf)
        values.append(float(torch.logsumexp(others, 1).mean()))
    return float(STRENGTHS[values.index(max(values))])

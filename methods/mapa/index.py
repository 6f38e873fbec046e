"""The index posterior: which training point's code gave x, from distances in data space alone.

With the prior replaced by its empirical version, uniform over the unknown training codes z_1..z_N,
    p(i | x) = N(x; f(z_i), s2 I) / sum_j N(x; f(z_j), s2 I),
which no reparameterisation of latent space changes. The f(z_i) are unknown, but where f(z) lies can be estimated (see
signals.py), as atoms a_k with weights w_k. Given these, p(k | x) is Bayes' rule, and the index posterior goes by way of
the atoms: p(i | x) = sum_k p(k | x) p(i | k).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """Where the signals f(z) lie: atoms (K, D), log-weights (K,), and the variance of x about each atom (K,)."""

    atoms: Tensor
    log_weight: Tensor
    variance: Tensor

    def log_posterior(self, x: Tensor) -> Tensor:
        """log p(k | x) by Bayes' rule, with p(x | k) = N(x; a_k, v_k I): (n, D) -> (n, K)."""
        return torch.log_softmax(self.log_joint(torch.cdist(x, self.atoms).square()), 1)

    def log_joint(self, squared: Tensor, among: Tensor | slice = slice(None)) -> Tensor:
        """log w_k p(x | k) but for a constant, from squared distances to all atoms or, (n, m), to those `among`."""
        variance = self.variance[among]
        return self.log_weight[among] - self.atoms.shape[1] / 2 * variance.log() - squared / (2 * variance)


def log_index_posterior(mixture: Mixture, train: Tensor) -> Callable[[Tensor], Tensor]:
    """log p(i | x) = log sum_k p(k | x) p(i | k) over training data (N, D): (n, D) -> (n, N).

    p(i | k) is proportional to p(k | x_i): Bayes' rule again, all training data being equally probable before.
    """

    def log_index(x: Tensor) -> Tensor:
        of_train = mixture.log_posterior(train.double()).exp()
        given_atom = of_train / of_train.sum(0).clamp(min=torch.finfo(of_train.dtype).tiny)
        return (mixture.log_posterior(x.double()).exp() @ given_atom.T).log()

    return log_index

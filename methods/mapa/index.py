"""The index posterior: which training point's code generated x, from distances in data space alone.

The prior is replaced by its empirical version, uniform over the unknown training codes z_1..z_N. Then
    p(i | x) = N(x; f(z_i), s2 I) / sum_j N(x; f(z_j), s2 I),
which does not change under reparameterisation of latent space. The f(z_i) are unknown, but `deconvolution.py`
estimates where f(z) lies, as atoms a_k with weights w_k. Bayes' rule gives p(k | x), and the index posterior sums over
the atoms: p(i | x) = sum_k p(k | x) p(i | k).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

ENTRIES_AT_ONCE = 4_000_000
LEAST = torch.finfo(torch.float64).tiny


class Atoms(Protocol):
    """A mixture that estimates where the signals lie, of any family: its K atoms are means."""

    @property
    def atoms(self) -> Tensor:
        """The means a_k, (K, D), in data units."""
        ...

    @property
    def log_weight(self) -> Tensor:
        """The log-weights, (K,), up to a constant."""
        ...

    def in_units(self, x: Tensor) -> Tensor:
        """Data or means where noise has the same variance everywhere: (n, D) -> (n, D)."""
        ...

    def log_posterior(self, x: Tensor) -> Tensor:
        """log p(k | x) by Bayes' rule, in nats: (n, D) -> (n, K)."""
        ...


@dataclass(frozen=True)
class Mixture:
    """An estimate of where the signals f(z) lie: a mixture of K Gaussians for x, isotropic in some units.

    Args:
        atoms: The means a_k, (K, D), in data units.
        log_weight: The log-weights, (K,), up to a constant.
        variance: The variance v_k of x about each atom, (K,), in squared units of `scale`.
        scale: The unit of each coordinate, (D,), in data units; None for data units.
    """

    atoms: Tensor
    log_weight: Tensor
    variance: Tensor
    scale: Tensor | None = None

    def in_units(self, x: Tensor) -> Tensor:
        """Data or means where noise has the same variance everywhere: in units of `scale`, (n, D) -> (n, D)."""
        return x if self.scale is None else x / self.scale

    def squared(self, x: Tensor) -> Tensor:
        """Squared distances of data to the atoms, in squared units of `scale`: (n, D) -> (n, K)."""
        return torch.cdist(self.in_units(x), self.in_units(self.atoms)).square()

    def log_posterior(self, x: Tensor) -> Tensor:
        """log p(k | x) by Bayes' rule, with p(x | k) = N(x; a_k, v_k I) in units of `scale`.

        Args:
            x: Data, (n, D).

        Returns:
            Log-probabilities in nats, (n, K).
        """
        return torch.log_softmax(self.log_joint(self.squared(x)), 1)

    def log_joint(self, squared: Tensor, among: Tensor | slice = slice(None)) -> Tensor:
        """log w_k p(x | k) up to a constant, from squared distances.

        Args:
            squared: Squared distances of x to the atoms in units of `scale`, (n, K), or to those in `among`, (n, m).
            among: The indices of the atoms, (n, m); all atoms by default.

        Returns:
            Values in nats, of the shape of `squared`.
        """
        variance = self.variance[among]
        return self.log_weight[among] - self.atoms.shape[1] / 2 * variance.log() - squared / (2 * variance)


def log_index_posterior(mixture: Atoms, train: Tensor) -> Callable[[Tensor], Tensor]:
    """The index posterior, log p(i | x) = log sum_k p(k | x) p(i | k).

    p(i | k) is proportional to p(k | x_i), by Bayes' rule with a uniform prior over the training points.

    Args:
        mixture: The mixture that estimates where the signals lie.
        train: Training points, (N, D).

    Returns:
        log p(i | x), (n, D) -> (n, N), in nats. Training points are taken in parts, so that memory suffices for many.
    """
    parts = train.split(max(1, ENTRIES_AT_ONCE // len(mixture.log_weight)))

    def of_train(part: Tensor) -> Tensor:
        return mixture.log_posterior(part.double()).exp()

    @cache
    def total() -> Tensor:
        return torch.stack([of_train(part).sum(0) for part in parts]).sum(0).clamp(min=LEAST)

    def log_index(x: Tensor) -> Tensor:
        of_x = mixture.log_posterior(x.double()).exp()
        return torch.cat([(of_x @ (of_train(part) / total()).T).log() for part in parts], 1)

    return log_index

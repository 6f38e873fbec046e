"""Deconvolution, the first step of MAPA: where the signals f(z) lie, estimated from noisy data without knowing f.

The estimate is a mixture of atoms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from methods.contract.method import Ledger
from methods.mapa.index import Atoms, Mixture

DENSE = 20_000_000
BLOCK = 4_000_000
PROBES = 200
LEFT_OUT = 1e-3
CHARGES = {"nearest atoms": "n m (log2 K + 3 D), for the m atoms nearest to each of n data, among K"}


@dataclass(frozen=True)
class Sums:
    """Sums over data x_n, for each of K atoms.

    Args:
        weight: The sums of p(k | x_n), (K,).
        square: The sums of p(k | x_n)^2, (K,).
        first: The sums of p(k | x_n) x_n, (K, D).
    """

    weight: Tensor
    square: Tensor
    first: Tensor

    def means(self, otherwise: Tensor) -> Tensor:
        """The mean of the data of each atom, weighted by p(k | x_n).

        Args:
            otherwise: The values for atoms that explain no data, (K, D).

        Returns:
            Means, (K, D), in data units.
        """
        least = torch.finfo(self.weight.dtype).tiny
        found = self.first / self.weight.clamp(min=least)[:, None]
        return torch.where(self.weight[:, None] > least, found, otherwise)

    def single(self) -> Tensor:
        """1 / n_k of each atom, (K,), where n_k is the effective number of its data.

        The mean of n_k equally weighted points has the same variance as the atom's weighted mean.
        """
        return (self.square / self.weight.square().clamp(min=torch.finfo(self.weight.dtype).tiny)).clamp(max=1)


def estimate(
    x: Tensor,
    noise: float,
    smoothing: float,
    weight_steps: int,
    atom_steps: int,
    ledger: Ledger,
    scale: Tensor | None = None,
) -> Mixture:
    """A mixture that estimates where the signals f(z) of data lie, with one atom for each point.

    The first estimate is too smooth: each atom is the kernel mean of the data around a point. A few steps of
    expectation maximisation sharpen it, first of the weights and then of the atoms. Their limit, the maximum
    likelihood estimate (Kiefer & Wolfowitz 1956; Laird 1978), is too sharp, so stopping early regularises.

    The variance of x about an atom is that of a prediction, s2 (1 + 1/n_k): 2 s2 for an isolated point, and nearly s2
    for one with many neighbours.

    Args:
        x: Data, (N, D).
        noise: The noise variance s2, in squared units of `scale`.
        smoothing: The variance of the first kernel, in units of s2. With 0 the atoms start at the data.
        weight_steps: Number of steps for the weights.
        atom_steps: Number of steps for the atoms.
        ledger: Where the work is accounted for.
        scale: The unit of each coordinate, (D,), in data units; None for data units.
    """
    even = x.new_zeros(len(x))
    mixture = Mixture(x, even, torch.full_like(even, 2 * noise), scale)
    if smoothing:
        kernel = replace(mixture, variance=torch.full_like(even, smoothing * noise))
        mixture = sharpened(kernel, x, noise, ledger)
    if weight_steps:
        mixture = replace(mixture, log_weight=_weights(mixture, x, weight_steps))
    for _ in range(atom_steps):
        mixture = sharpened(mixture, x, noise, ledger)
    return mixture


def sharpened(mixture: Mixture, x: Tensor, noise: float, ledger: Ledger) -> Mixture:
    """One step of expectation maximisation for the atoms: each moves to the mean of its data. The weights stay.

    Args:
        mixture: The mixture before the step.
        x: Data, (n, D).
        noise: The noise variance s2, in squared units of the mixture's `scale`.
        ledger: Where the work is accounted for.
    """
    found = sums(mixture, x, ledger)
    return replace(mixture, atoms=found.means(mixture.atoms), variance=noise * (1 + found.single()))


def _weights(mixture: Mixture, x: Tensor, steps: int) -> Tensor:
    """Log-weights, (K,), after steps of expectation maximisation with fixed atoms."""
    joint = mixture.log_joint(mixture.squared(x)) - mixture.log_weight
    log_weight = mixture.log_weight
    for _ in range(steps):
        log_weight = torch.logsumexp(torch.log_softmax(joint + log_weight, 1), 0) - math.log(len(x))
    return log_weight


def thinned(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """At most `most` rows of data: all of them, or a random subset without replacement.

    Args:
        x: Data, (N, D).
        most: The largest number of rows.
        generator: The source of randomness.
    """
    if len(x) <= most:
        return x
    chosen = torch.randperm(len(x), generator=generator, device=generator.device)[:most]
    return x[chosen.to(x.device)]


def sums(mixture: Atoms, x: Tensor, ledger: Ledger) -> Sums:
    """The sums over data for each atom, in memory that does not grow with n.

    If there are many pairs and the noise is small, few atoms matter to each point, and a k-d tree finds the nearest
    ones. Their number is such that at most a thousandth of p(k | x) is left out, on a sample of the data.

    Args:
        mixture: The mixture, with K atoms.
        x: Data, (n, D).
        ledger: Where the work is accounted for.
    """
    size = len(mixture.atoms)
    gaussian = mixture if isinstance(mixture, Mixture) else None
    nearest = _atoms_that_matter(gaussian, x) if gaussian and len(x) * size > DENSE else size
    blocks = x.split(max(1, BLOCK // nearest))
    tree = _tree(gaussian) if gaussian and nearest < size else None
    total = x.new_zeros(size, x.shape[1] + 2)
    for block in blocks:
        if tree is None or gaussian is None:
            p = mixture.log_posterior(block).exp()
            total += torch.cat([p.sum(0)[:, None], p.square().sum(0)[:, None], p.T @ block], 1)
        else:
            ledger.charge("nearest atoms", len(block) * nearest * (math.log2(size) + 3.0 * x.shape[1]))
            asked = gaussian.in_units(block).cpu().numpy()
            distance, among = (torch.from_numpy(each).to(x.device) for each in tree.query(asked, nearest))
            p = torch.softmax(gaussian.log_joint(distance.square(), among), 1)[..., None]
            rows = torch.cat([p, p.square(), p * block[:, None]], 2)
            total.index_add_(0, among.flatten(), rows.flatten(0, 1))
    return Sums(total[:, 0], total[:, 1], total[:, 2:])


def nearest(places: Tensor, asked: Tensor, x: Tensor) -> Sums:
    """The sums over data for each place, where each datum belongs wholly to the place that is nearest to it.

    Args:
        places: The places, (K, D).
        asked: The data in the units of the places, (n, D).
        x: The same data in data units, (n, D).
    """
    owner = torch.empty(len(x), dtype=torch.long, device=x.device)  # a result kept per block would split the heap
    size = max(1, BLOCK // len(places))
    for mine, block in zip(owner.split(size), asked.split(size), strict=True):
        mine.copy_(torch.cdist(block, places).argmin(1))
    number = x.new_zeros(len(places)).index_add_(0, owner, x.new_ones(len(x)))
    return Sums(number, number, x.new_zeros(len(places), x.shape[1]).index_add_(0, owner, x))


def _atoms_that_matter(mixture: Mixture, x: Tensor) -> int:
    """How many of the nearest atoms to use for each point: a power of two, or all if more than a quarter is needed."""
    size = len(mixture.atoms)
    squared, order = mixture.squared(x[:: max(1, len(x) // PROBES)]).sort(1)
    left_out = 1 - torch.softmax(mixture.log_joint(squared, order), 1).cumsum(1).mean(0)
    needed = int((left_out > LEFT_OUT).sum()) + 1
    return size if 4 * needed > size else 2 ** math.ceil(math.log2(needed))


def _tree(mixture: Mixture) -> Any:
    from scipy.spatial import KDTree

    return KDTree(mixture.in_units(mixture.atoms).cpu().numpy())

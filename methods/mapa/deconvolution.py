"""Where the signals f(z) lie, estimated from data that are draws of them with noise, without knowing f.

The first step of MAPA: a deconvolution. The estimate is a mixture of atoms, all that later steps need of the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from methods.contract.method import Ledger
from methods.mapa.index import Mixture

DENSE = 20_000_000
BLOCK = 4_000_000
PROBES = 200
LEFT_OUT = 1e-3
CHARGES = {"nearest atoms": "n m (log2 K + 3 D), for the m atoms nearest to each of n data, among K"}


@dataclass(frozen=True)
class Sums:
    """Sums over data x_n for each atom: of p(k | x_n), (K,); of its square, (K,); and of p(k | x_n) x_n, (K, D)."""

    weight: Tensor
    square: Tensor
    first: Tensor

    def means(self, otherwise: Tensor) -> Tensor:
        """The mean of the data of each atom, (K, D); an atom that explains nothing gets its row of `otherwise`."""
        least = torch.finfo(self.weight.dtype).tiny
        found = self.first / self.weight.clamp(min=least)[:, None]
        return torch.where(self.weight[:, None] > least, found, otherwise)

    def single(self) -> Tensor:
        """1 / n_k, (K,): n_k is the number of equally weighted data whose mean has the variance of the atom's mean."""
        return (self.square / self.weight.square().clamp(min=torch.finfo(self.weight.dtype).tiny)).clamp(max=1)


def estimate(x: Tensor, noise: float, smoothing: float, weight_steps: int, atom_steps: int, ledger: Ledger) -> Mixture:
    """A mixture for the signals f(z) behind data x (N, D) with noise variance s2: N atoms.

    It begins too smooth, each atom the kernel mean of the data around a datum, and is sharpened by a few steps of
    expectation maximisation, of the weights and then of the atoms. Their limit is the maximum likelihood estimate
    (Kiefer & Wolfowitz 1956; Laird 1978), which is too sharp: to stop early regularises it. smoothing: the variance of
    the first kernel, in units of s2; with 0 the data themselves are the atoms.

    The variance about an atom is that of a prediction, s2 (1 + 1/n_k): 2 s2 for a datum on its own, s2 among many.
    """
    even = x.new_zeros(len(x))
    mixture = Mixture(x, even, torch.full_like(even, 2 * noise))
    if smoothing:
        kernel = replace(mixture, variance=torch.full_like(even, smoothing * noise))
        mixture = sharpened(kernel, x, noise, ledger)
    if weight_steps:
        mixture = replace(mixture, log_weight=_weights(mixture, x, weight_steps))
    for _ in range(atom_steps):
        mixture = sharpened(mixture, x, noise, ledger)
    return mixture


def sharpened(mixture: Mixture, x: Tensor, noise: float, ledger: Ledger) -> Mixture:
    """The same weights, with atoms at the means of their data."""
    found = sums(mixture, x, ledger)
    return replace(mixture, atoms=found.means(mixture.atoms), variance=noise * (1 + found.single()))


def _weights(mixture: Mixture, x: Tensor, steps: int) -> Tensor:
    """Log-weights (K,) after steps of expectation maximisation, the atoms held fixed."""
    joint = mixture.log_joint(torch.cdist(x, mixture.atoms).square()) - mixture.log_weight
    log_weight = mixture.log_weight
    for _ in range(steps):
        log_weight = torch.logsumexp(torch.log_softmax(joint + log_weight, 1), 0) - math.log(len(x))
    return log_weight


def thinned(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """x (N, D) itself or, where it has more rows, `most` of them drawn at random."""
    if len(x) <= most:
        return x
    chosen = torch.randperm(len(x), generator=generator, device=generator.device)[:most]
    return x[chosen.to(x.device)]


def resampled(mixture: Mixture, count: int) -> tuple[Mixture, Tensor]:
    """The mixture with weights that are multiples of 1/count, and the atom of each of `count` equal shares, (count,).

    Systematic resampling along the principal axis of the atoms: no stretch of it gains or loses more than one share,
    and atoms that get none are left out.
    """
    order = _along_principal_axis(mixture.atoms).argsort()
    above = mixture.log_weight.softmax(0)[order].cumsum(0)
    places = (torch.arange(count, dtype=above.dtype, device=above.device) + 0.5) / count * above[-1]
    chosen = order[torch.searchsorted(above, places).clamp(max=len(above) - 1)]
    kept, share, copies = torch.unique(chosen, return_inverse=True, return_counts=True)
    return Mixture(mixture.atoms[kept], copies.to(above).log(), mixture.variance[kept]), share


def _along_principal_axis(points: Tensor) -> Tensor:
    centred = points - points.mean(0)
    return centred @ torch.linalg.eigh(centred.T @ centred)[1][:, -1]


def sums(mixture: Mixture, x: Tensor, ledger: Ledger) -> Sums:
    """The sums over data x (n, D), in memory that does not grow with n: over all atoms, or those nearest to a datum.

    Where n K pairs are many and noise is small, few of the atoms matter to a datum, and a k-d tree finds them; as many
    are taken as leave out at most a thousandth of p(k | x) on a sample of the data.
    """
    size = len(mixture.atoms)
    nearest = _atoms_that_matter(mixture, x) if len(x) * size > DENSE else size
    blocks = x.split(max(1, BLOCK // nearest))
    tree = _tree(mixture) if nearest < size else None
    total = x.new_zeros(size, x.shape[1] + 2)
    for block in blocks:
        if tree is None:
            p = mixture.log_posterior(block).exp()
            total += torch.cat([p.sum(0)[:, None], p.square().sum(0)[:, None], p.T @ block], 1)
        else:
            ledger.charge("nearest atoms", len(block) * nearest * (math.log2(size) + 3.0 * x.shape[1]))
            distance, among = (torch.from_numpy(each).to(x.device) for each in tree.query(block.cpu().numpy(), nearest))
            p = torch.softmax(mixture.log_joint(distance.square(), among), 1)[..., None]
            rows = torch.cat([p, p.square(), p * block[:, None]], 2)
            total.index_add_(0, among.flatten(), rows.flatten(0, 1))
    return Sums(total[:, 0], total[:, 1], total[:, 2:])


def _atoms_that_matter(mixture: Mixture, x: Tensor) -> int:
    """How many of the atoms nearest to a datum to weigh: a power of two, or all where that is more than a quarter."""
    size = len(mixture.atoms)
    squared, order = torch.cdist(x[:: max(1, len(x) // PROBES)], mixture.atoms).square().sort(1)
    left_out = 1 - torch.softmax(mixture.log_joint(squared, order), 1).cumsum(1).mean(0)
    needed = int((left_out > LEFT_OUT).sum()) + 1
    return size if 4 * needed > size else 2 ** math.ceil(math.log2(needed))


def _tree(mixture: Mixture) -> Any:
    from scipy.spatial import KDTree

    return KDTree(mixture.atoms.cpu().numpy())

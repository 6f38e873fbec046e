"""The index posterior: which training point's code gave x, from distances in data space alone.

With the prior replaced by its empirical version, uniform over the unknown training codes z_1..z_N,
    p(i | x) = N(x; f(z_i), s2 I) / sum_j N(x; f(z_j), s2 I),
which no reparameterisation of latent space changes. MAPA puts an estimate a_i, an atom, in the place of f(z_i).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FIRST_WIDTH = 2.0


def log_index_posterior(x: Tensor, atoms: Tensor, variance: float) -> Tensor:
    """log p(i | x) = log softmax_i(-|x - a_i|^2 / (2 variance)): x (n, D), atoms (N, D) -> (n, N)."""
    return torch.log_softmax(torch.cdist(x, atoms).square() / (-2 * variance), 1)


def denoise(x: Tensor, noise: float, steps: int) -> Tensor:
    """Atoms a_i near f(z_i) from the data x (N, D) themselves: (N, D).

    Each step is one of expectation maximisation for a mixture of N equal atoms, a_i <- sum_n p(i | x_n) x_n / w_i, so
    that each raises the likelihood of the training set. The first step starts at a_i = x_i, where x_n - x_i has
    twice the noise variance if x_n and x_i share a code; later ones take the atoms for noiseless.
    """
    atoms = x
    for step in range(steps):
        width = FIRST_WIDTH if step == 0 else 1.0
        atoms = mean_given_index(log_index_posterior(x, atoms, width * noise).exp(), x)[0]
    return atoms


def mean_given_index(posterior: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Targets t_i = sum_n p(i | x_n) x_n / w_i, (N, D), and weights w_i = sum_n p(i | x_n), (N,).

    An index that explains no datum at all gets weight 0, and the data mean as its target.
    """
    weight = posterior.sum(0)
    targets = (posterior.T @ x) / weight.clamp(min=torch.finfo(x.dtype).tiny)[:, None]
    return torch.where(weight[:, None] > 0, targets, x.mean(0)), weight


def pilot_noise(x: Tensor) -> float:
    """A first guess of the noise variance: the kernel width of the best leave-one-out density estimate of x (N, D)."""
    squared = torch.cdist(x, x).square().fill_diagonal_(math.inf)
    spread = float(x.var(0).mean()) if len(x) > 1 else 0.0
    if spread == 0:
        return 1.0
    candidates = spread * torch.logspace(-4, 0, 25, dtype=x.dtype)
    scores = [float(torch.logsumexp(squared / (-2 * v), 1).mean() - x.shape[1] / 2 * v.log()) for v in candidates]
    return float(candidates[int(torch.tensor(scores).argmax())])


def refine_noise(x: Tensor, centres: Tensor, noise: float, steps: int = 30) -> float:
    """The noise variance of equal Gaussians at `centres` (N, D) that explains x (n, D), by expectation maximisation.

    It stays above a millionth of the variance of x, where few data would let it vanish.
    """
    least = max(1e-6 * float(x.var(0, unbiased=False).mean()), 1e-12)
    squared = torch.cdist(x, centres).square()
    for _ in range(steps):
        posterior = torch.softmax(squared / (-2 * noise), 1)
        noise = max(float((posterior * squared).sum() / x.numel()), least)
    return noise

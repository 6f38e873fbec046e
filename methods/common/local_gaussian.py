"""Gaussian posteriors fitted to each x by itself, as an encoder of unlimited capacity would give them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.special import ndtri

from methods.common.optimisers import Cosine
from methods.contract.method import DecoderModel, likelihood_of

NODES = 24
STEPS = 100
LEARNING_RATE = 0.15
CODES = 4096
DIFFERENCE = 1e-2


def spread_codes(count: int, latent_dim: int) -> Tensor:
    """Codes (count, L) spread evenly under N(0, I): a scrambled Sobol set, the same at every call."""
    engine = torch.quasirandom.SobolEngine(latent_dim, scramble=True, seed=0)
    return ndtri(engine.draw(count, dtype=torch.float64).clamp(1e-9, 1 - 1e-9))


def nodes_of_normal(latent_dim: int) -> Tensor:
    """24 nodes (24, L), or 3 L if that is more, whose mean and covariance are exactly those of N(0, I)."""
    half = spread_codes(max(NODES, 3 * latent_dim + latent_dim % 2) // 2, latent_dim)
    nodes = torch.cat([half, -half])
    return torch.linalg.solve_triangular(torch.linalg.cholesky(nodes.T @ nodes / len(nodes)), nodes.T, upper=False).T


def maximise_elbo(model: DecoderModel, x: Tensor, *starts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The diagonal Gaussian of highest ELBO for each x, over several starts.

    Adam climbs a deterministic ELBO: the KL to the prior in closed form, the likelihood averaged over fixed nodes.

    Args:
        model: The generative model.
        x: Data, (n, D).
        *starts: Mean and log standard deviation where an ascent starts, each (n, L).

    Returns:
        Mean and log standard deviation, (n, L) each, float64.
    """
    start_mean, start_log_scale = (torch.stack(each).detach().double() for each in zip(*starts, strict=True))
    nodes = nodes_of_normal(start_mean.shape[-1]).to(x.device)
    shift = torch.zeros(1, 2 * start_mean.numel(), dtype=torch.float64, device=x.device)
    optimiser = Cosine(shift, shift.clone(), LEARNING_RATE)

    def at(shift: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, moved by a shift in units of the standard deviation where it started."""
        moved, widened = shift.view(2, *start_mean.shape)
        return start_mean + start_log_scale.exp() * moved, start_log_scale + widened

    for step in range(STEPS):
        with torch.enable_grad():
            here = shift.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(-_elbo(model, x, *at(here), nodes).sum(), here)
        optimiser.step(gradient, [True], step / STEPS)
    with torch.no_grad():
        mean, log_scale = map(torch.cat, zip(at(shift), (start_mean, start_log_scale), strict=True))
        best = _elbo(model, x, mean, log_scale, nodes).argmax(0)
        rows = torch.arange(len(x), device=x.device)
        return mean[best, rows], log_scale[best, rows]


def _elbo(model: DecoderModel, x: Tensor, mean: Tensor, log_scale: Tensor, nodes: Tensor) -> Tensor:
    """The ELBO of each x (n, D) for Gaussians (..., n, L) in nats, with nodes (m, L) for the likelihood: (..., n)."""
    scale = log_scale.exp()
    z = mean[..., None, :, :] + scale[..., None, :, :] * nodes[:, None]
    likelihood = likelihood_of(model).log_prob(x.double(), model.decode(z).double()).mean(-2)
    return likelihood - 0.5 * (mean.square() + scale.square() - 1 - 2 * log_scale).sum(-1)


@torch.no_grad()
def laplace(model: DecoderModel, x: Tensor, latent_dim: int) -> tuple[Tensor, Tensor]:
    """A diagonal Gaussian for each x at the most probable of 4,096 codes.

    Its precision along axis a is 1 plus the Fisher information, which is |df / dz_a|^2 / s2 for Gaussian data.

    Args:
        model: The generative model.
        x: Data, (n, D).
        latent_dim: L.

    Returns:
        Mean and log standard deviation, (n, L) each, float64.
    """
    codes = spread_codes(CODES, latent_dim).to(x.device)
    likelihood = likelihood_of(model)
    value = likelihood.compared(x.double(), model.decode(codes).double())
    mode = codes[(value - codes.square().sum(1) / 2).argmax(1)]
    shifts = DIFFERENCE * torch.eye(latent_dim, dtype=torch.float64, device=x.device)[:, None]
    ahead, behind = (likelihood.embed(model.decode(mode + each)) for each in (shifts, -shifts))
    slopes = (ahead - behind).double() / (2 * DIFFERENCE)
    precision = 1 + slopes.square().sum(-1).T / likelihood.dispersion
    return mode, -0.5 * precision.log()

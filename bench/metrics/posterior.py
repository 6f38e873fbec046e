"""How close an approximate posterior is to the posterior of its own model, and to the true one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.special import ndtr

from bench.metrics.likelihood import Likelihood, encoded
from bench.metrics.measurement import Measurement, mean, root_mean
from bench.metrics.nuts import NutsDraws
from bench.metrics.shared import UNSHARED, Shared
from bench.metrics.wasserstein import squared_w2
from datasets.base import Problem
from datasets.quadrature import normal_codebook
from methods.common.latent_grid import GridPosterior, index_without_codes
from methods.contract.method import Fitted, Posterior, likelihood_of

GAP_POINTS = 100
GAP_DRAWS = 64
SIGNAL_POINTS = 200
NODES = {1: 128, 2: 256}
LEAST_LOG = -700.0
INDEX_POINTS = 1000
MOST_INDICES = 20_000
ENTRIES_AT_ONCE = 4_000_000
MOST_ENTRIES = 100_000_000


def gap_split(fitted: Fitted, x: Tensor, learned: Likelihood, seed: int) -> list[Measurement]:
    """The two parts of the inference gap: what the family of q costs, and what amortisation adds to it.

    approximation_gap is log p(x) minus the ELBO of the best member of q's family for each x (Cremer et al. 2018, eq.
    4). amortisation_gap is that ELBO minus the ELBO of q (eq. 5). The best member is the best one found, so the first
    is an upper bound. Both ELBOs are means over the same 64 random numbers.

    Args:
        fitted: What the method has learned.
        x: Points, (n, D).
        learned: log p(x) of the points under the learned model.
        seed: The seed of the draws.

    Returns:
        The two measurements; none for a posterior without `best`.
    """
    member = fitted.posterior.best(fitted.model, x)
    if member is None:
        return []
    best = Fitted(fitted.model, member)
    own, highest = (encoded(each, x, GAP_DRAWS, seed).elbo for each in (fitted, best))
    return [mean("approximation_gap", learned.value - highest, learned.error), mean("amortisation_gap", highest - own)]


def index_divergence(fitted: Fitted, problem: Problem, train: Tensor, codes: Tensor) -> list[Measurement]:
    """index_kl, the mean of KL(p(i | x) || q(i | x)), and index_tv, the mean total variation, over training points.

    p(i | x) is the true model's posterior of which training code generated x, under a uniform prior: it is proportional
    to p(x | z_i). q(i | x) is the method's, and at least exp(-700). The mean is over the first 1,000 training
    points; the posteriors are over all N.

    Args:
        fitted: What the method has learned.
        problem: The data source.
        train: Training points, (N, D).
        codes: Their true codes, (N, L).

    Returns:
        The two measurements; none for a method without q(i | x), and none above 20,000 training points.
    """
    if fitted.log_index is None or len(train) > MOST_INDICES:
        return []
    kl, tv = _index_divergence(problem, codes, fitted.log_index, train)
    return [mean("index_kl", kl), mean("index_tv", tv, unit="probability")]


def index_floor(
    problem: Problem,
    truth: GridPosterior,
    train: Tensor,
    codes: Tensor,
    shared: Shared = UNSHARED,
) -> list[Measurement]:
    """index_kl_floor and index_tv_floor: the values of the best q(i | x) that knows the true model but not the codes.

    They are the same for every method on the same training points, and are computed once for all.

    Args:
        problem: The data source.
        truth: The true p(z | x) on a grid.
        train: Training points, (N, D).
        codes: Their true codes, (N, L).
        shared: Where the floor is kept for other runs.

    Returns:
        The two measurements; none where points times grid boxes exceed 1e8, which is too much for memory.
    """
    if len(train) > MOST_INDICES or len(train) * len(truth.log_mass) > MOST_ENTRIES:
        return []
    train = train.cpu()

    def divergence() -> dict[str, Tensor]:
        kl, tv = _index_divergence(problem, codes, index_without_codes(truth, train), train)
        return {"kl": kl, "tv": tv}

    found = shared.found(f"index floor {problem.name}", [train, codes], divergence)
    return [mean("index_kl_floor", found["kl"]), mean("index_tv_floor", found["tv"], unit="probability")]


def true_log_index(problem: Problem, x: Tensor, codes: Tensor) -> Tensor:
    """The true model's index posterior.

    Args:
        problem: The data source.
        x: Points, (n, D).
        codes: True codes of the training points, (N, L).

    Returns:
        log p(i | x) in nats, (n, N).
    """
    return torch.log_softmax(problem.likelihood.compared(x.cpu(), problem.decoder(codes)), 1)


def _index_divergence(
    problem: Problem, codes: Tensor, log_index: Callable[[Tensor], Tensor], train: Tensor
) -> tuple[Tensor, Tensor]:
    """KL and total variation of p(i | x) and exp(log_index(x)), for the first 1,000 training points: (n,) each."""
    kl, tv = [], []
    for x in train[:INDEX_POINTS].split(max(ENTRIES_AT_ONCE // len(train), 1)):
        log_p = true_log_index(problem, x, codes)
        log_q = log_index(x).double().cpu().clamp(min=LEAST_LOG)
        p = log_p.exp()
        kl.append(torch.where(p > 0, p * (log_p - log_q), 0.0).sum(1))
        tv.append((p - log_q.exp()).abs().sum(1) / 2)
    return torch.cat(kl), torch.cat(tv)


def signal_distance(
    fitted: Fitted,
    problem: Problem,
    truth: Posterior,
    x: Tensor,
    seed: int,
    shared: Shared = UNSHARED,
) -> list[Measurement]:
    """signal_w2: the distance between the true and the learned posterior of the noiseless signal f(z).

    It is the root mean square, over the first 200 points, of the 2-Wasserstein distance between the true p(f(z) | x)
    and the learned one under q. In data space it does not depend on how z is parameterised. Each posterior is
    represented by 128 (L = 1) or 256 equally weighted points; the error compares with half as many. A posterior without
    `from_uniform` is represented by as many draws, so that its distance is positive even for equal posteriors.

    Args:
        fitted: What the method has learned.
        problem: The data source.
        truth: The true p(z | x).
        x: Points, (n, D).
        seed: The seed of the draws.
        shared: Where the points of the true posterior are kept for other runs.
    """
    x = x[:SIGNAL_POINTS]
    count = NODES[problem.latent_dim]
    found = signals(fitted, problem, truth, x, (count, count // 2), seed, shared)
    fine, coarse = (squared_w2(*each) for each in found)
    return [root_mean("signal_w2", fine, abs(float((fine - coarse).mean())), "data units")]


def signal_distance_from_draws(fitted: Fitted, problem: Problem, nuts: NutsDraws, x: Tensor) -> list[Measurement]:
    """signal_w2 where only draws of the true posterior are known, over the points whose chains have converged.

    The squared distance of two sets of draws is reduced by half of the squared distance of two sets of draws of the
    same posterior, for both posteriors. So it is 0 in expectation for equal posteriors (Genevay et al. 2018, eq. 7).

    Args:
        fitted: What the method has learned.
        problem: The data source.
        nuts: Draws of the true p(z | x).
        x: The points of these draws, (n, D).

    Returns:
        The measurement; none if no chains have converged.
    """
    good = nuts.converged
    if not good.any():
        return []
    x = x[good.to(x.device)]
    true = problem.signal(nuts.draws[:, good]).transpose(0, 1)
    z = fitted.posterior.sample(x, true.shape[1], torch.Generator(x.device).manual_seed(0))[0]
    learned = _signal(fitted, z).transpose(0, 1)
    between = (squared_w2(true[:, ::2], learned[:, ::2]) + squared_w2(true[:, 1::2], learned[:, 1::2])) / 2
    within = (squared_w2(true[:, ::2], true[:, 1::2]) + squared_w2(learned[:, ::2], learned[:, 1::2])) / 2
    found = root_mean("signal_w2", between - within, 0.0, "data units")
    diagnostics = {
        "rhat_max": float(nuts.rhat[good].max()),
        "ess_min": float(nuts.ess[good].min()),
        "not_converged": float((~good).double().mean()),
    }
    return [replace(found, diagnostics=diagnostics)]


def signals(
    fitted: Fitted,
    problem: Problem,
    truth: Posterior,
    x: Tensor,
    counts: Sequence[int],
    seed: int,
    shared: Shared = UNSHARED,
) -> list[tuple[Tensor, Tensor]]:
    """Equally weighted points of the posterior of the noiseless signal f(z), true and learned.

    Args:
        fitted: What the method has learned.
        problem: The data source.
        truth: The true p(z | x).
        x: Points, (n, D).
        counts: Numbers of points per posterior.
        seed: The seed of the draws.
        shared: Where the points of the true posterior are kept for other runs.

    Returns:
        For each count, points of the true p(f(z) | x) and of the learned one under q, (n, count, D) each.
    """

    def of_truth() -> dict[str, Tensor]:
        drawn = _points(truth, x.cpu(), counts, problem.latent_dim, seed)
        return {str(count): problem.signal(z) for count, z in zip(counts, drawn, strict=True)}

    true = shared.found(f"true signals {problem.name} {seed} {list(counts)}", [x.cpu()], of_truth).values()
    drawn = _points(fitted.posterior, x, counts, problem.latent_dim, seed)
    learned = [_signal(fitted, z) for z in drawn]
    return [(a.transpose(0, 1), b.transpose(0, 1)) for a, b in zip(true, learned, strict=True)]


def _signal(fitted: Fitted, z: Tensor) -> Tensor:
    """The learned mean of x given z, float64, on the CPU: (..., L) -> (..., D)."""
    return likelihood_of(fitted.model).mean(fitted.model.decode(z).double()).cpu()


def _points(posterior: Posterior, x: Tensor, counts: Sequence[int], latent_dim: int, seed: int) -> Sequence[Tensor]:
    """For each count, equally weighted points that represent q(z | x) for each x (n, D): (count, n, L)."""
    cube = torch.cat([cube_points(count, latent_dim) for count in counts])
    points = posterior.from_uniform(x, cube.to(x.device))
    if points is not None:
        return points.split(list(counts))
    return [posterior.sample(x, count, torch.Generator(x.device).manual_seed(seed))[0] for count in counts]


def cube_points(count: int, dim: int) -> Tensor:
    """Evenly spread points of the unit cube, (count, dim): midpoints on the first axis, a Sobol set on the others.

    Args:
        count: The number of points.
        dim: The number of axes, at least 1.

    Returns:
        Points, (count, dim), float64, on the CPU.
    """
    first = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    if dim == 1:
        return first[:, None]
    return torch.cat([first[:, None], ndtr(normal_codebook(count, dim))[:, 1:]], 1)

"""How near an approximate posterior is to that of its own model, and to that of the true one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.special import ndtr

from bench.metrics.likelihood import Likelihood, elbo
from bench.metrics.measurement import Measurement, mean, root_mean
from bench.metrics.nuts import Reference
from bench.metrics.wasserstein import squared_w2
from datasets.base import Problem
from datasets.quadrature import normal_codebook
from methods.common.latent_grid import GridPosterior, index_without_codes
from methods.contract.method import Fitted, Posterior

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
    """The inference gap of x (n, D) in two: what the family costs, and what amortisation adds.

    approximation_gap: log p(x) less the ELBO of the best member of q's family for each x (Cremer et al. 2018, eq. 4).
    amortisation_gap: that ELBO less q's own (eq. 5). The best is the best that was found, so that the first is an upper
    bound; both ELBOs are means over the same 64 random numbers. Empty for a posterior without `best`.
    """
    member = fitted.posterior.best(fitted.model, x)
    if member is None:
        return []
    best = Fitted(fitted.model, member)
    own, highest = (elbo(each, x, GAP_DRAWS, seed) for each in (fitted, best))
    return [mean("approximation_gap", learned.value - highest, learned.error), mean("amortisation_gap", highest - own)]


def index_divergence(fitted: Fitted, problem: Problem, train: Tensor, codes: Tensor) -> list[Measurement]:
    """index_kl = mean KL(p(i | x) || q(i | x)) and index_tv = mean total variation, over the training data x (N, D).

    p(i | x) is the true model's posterior over which of the codes (N, L) gave x, with equal weights before x is seen:
    proportional to N(x; f(z_i), s2 I). q(i | x) is the method's; below exp(-700) it counts as that. Over the first
    1,000 training data, against all N codes. Empty for a method without q(i | x), and above 20,000 data.
    """
    if fitted.log_index is None or len(train) > MOST_INDICES:
        return []
    kl, tv = _index_divergence(problem, codes, fitted.log_index, train)
    return [mean("index_kl", kl), mean("index_tv", tv, unit="probability")]


def index_floor(problem: Problem, truth: GridPosterior, train: Tensor, codes: Tensor) -> list[Measurement]:
    """index_kl_floor and index_tv_floor: those of the best q(i | x) that knows the true model but not the codes (N, L).

    It is the same for every method on the same training data (N, D), and is computed once per process. truth: p(z | x)
    of the true model. Empty where data times boxes exceed 1e8, which memory does not hold.
    """
    if len(train) > MOST_INDICES or len(train) * len(truth.log_mass) > MOST_ENTRIES:
        return []
    train = train.cpu()
    return list(_index_floor(_Indices(train.numpy().tobytes(), problem, truth, train, codes)))


@dataclass(frozen=True)
class _Indices:
    """Training data whose floor is asked for; two are the same if the data are."""

    content: bytes
    problem: Problem = field(compare=False)
    truth: GridPosterior = field(compare=False)
    train: Tensor = field(compare=False)
    codes: Tensor = field(compare=False)


@lru_cache(maxsize=4)
def _index_floor(of: _Indices) -> tuple[Measurement, Measurement]:
    kl, tv = _index_divergence(of.problem, of.codes, index_without_codes(of.truth, of.train), of.train)
    return mean("index_kl_floor", kl), mean("index_tv_floor", tv, unit="probability")


def true_log_index(problem: Problem, x: Tensor, codes: Tensor) -> Tensor:
    """log p(i | x) of the true model for x (n, D), over the codes (N, L): (n, N)."""
    squared = torch.cdist(x.cpu(), problem.decoder(codes)).square()
    return torch.log_softmax(-squared / (2 * problem.noise_variance), 1)


def _index_divergence(
    problem: Problem, codes: Tensor, log_index: Callable[[Tensor], Tensor], train: Tensor
) -> tuple[Tensor, Tensor]:
    """KL and total variation from p(i | x) to exp of log_index(x), for the first 1,000 of train: (n,) each."""
    kl, tv = [], []
    for x in train[:INDEX_POINTS].split(max(ENTRIES_AT_ONCE // len(train), 1)):
        log_p = true_log_index(problem, x, codes)
        log_q = log_index(x).double().cpu().clamp(min=LEAST_LOG)
        p = log_p.exp()
        kl.append(torch.where(p > 0, p * (log_p - log_q), 0.0).sum(1))
        tv.append((p - log_q.exp()).abs().sum(1) / 2)
    return torch.cat(kl), torch.cat(tv)


def signal_distance(fitted: Fitted, problem: Problem, truth: Posterior, x: Tensor, seed: int) -> list[Measurement]:
    """signal_w2: from p(f(z) | x) of the true model to that of the learned one under q, over the first 200 of x (n, D).

    The root mean square over x of the 2-Wasserstein distance, in data space, where no parameterisation of z is seen.
    Each posterior stands as equally weighted points, 128 of them (L = 1) or 256, whose number is halved for the error.
    A posterior without `from_uniform` is represented by as many draws, which leaves a distance even between equals.
    """
    x = x[:SIGNAL_POINTS]
    count = NODES[problem.latent_dim]
    fine, coarse = (_squared(fitted, problem, truth, x, m, seed) for m in (count, count // 2))
    return [root_mean("signal_w2", fine, abs(float((fine - coarse).mean())), "data units")]


def signal_distance_from_draws(fitted: Fitted, problem: Problem, reference: Reference, x: Tensor) -> list[Measurement]:
    """signal_w2 where the true posterior is known by draws alone, over the x (n, D) for which these have converged.

    From the squared distance of two sets of draws, half of what two sets of the same posterior are apart is taken, for
    each of both posteriors, so that it vanishes in expectation between equals (Genevay et al. 2018, eq. 7).
    """
    good = reference.converged
    if not good.any():
        return []
    x = x[good.to(x.device)]
    true = problem.decoder(reference.draws[:, good]).transpose(0, 1)
    z = fitted.posterior.sample(x, true.shape[1], torch.Generator(x.device).manual_seed(0))[0]
    learned = fitted.model.decode(z).double().cpu().transpose(0, 1)
    between = (squared_w2(true[:, ::2], learned[:, ::2]) + squared_w2(true[:, 1::2], learned[:, 1::2])) / 2
    within = (squared_w2(true[:, ::2], true[:, 1::2]) + squared_w2(learned[:, ::2], learned[:, 1::2])) / 2
    found = root_mean("signal_w2", between - within, 0.0, "data units")
    diagnostics = {
        "rhat_max": float(reference.rhat[good].max()),
        "ess_min": float(reference.ess[good].min()),
        "not_converged": float((~good).double().mean()),
    }
    return [replace(found, diagnostics=diagnostics)]


def _squared(fitted: Fitted, problem: Problem, truth: Posterior, x: Tensor, count: int, seed: int) -> Tensor:
    """The squared distance for each x (n, D) between posteriors of `count` points each: (n,)."""
    return squared_w2(*signals(fitted, problem, truth, x, count, seed))


def signals(
    fitted: Fitted, problem: Problem, truth: Posterior, x: Tensor, count: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Equally weighted points of p(f(z) | x) of the true model, and of the learned one under q: (n, count, D) each."""
    true = problem.decoder(_points(truth, x.cpu(), count, problem.latent_dim, seed))
    learned = fitted.model.decode(_points(fitted.posterior, x, count, problem.latent_dim, seed)).double().cpu()
    return true.transpose(0, 1), learned.transpose(0, 1)


def _points(posterior: Posterior, x: Tensor, count: int, latent_dim: int, seed: int) -> Tensor:
    """Equally weighted points that stand for q(z | x) of each x (n, D): (count, n, L)."""
    points = posterior.from_uniform(x, cube_points(count, latent_dim).to(x.device))
    if points is not None:
        return points
    return posterior.sample(x, count, torch.Generator(x.device).manual_seed(seed))[0]


def cube_points(count: int, dim: int) -> Tensor:
    """Well-spread points of the unit cube, (count, dim): midpoints along the first axis, a Sobol set along others."""
    first = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    if dim == 1:
        return first[:, None]
    return torch.cat([first[:, None], ndtr(normal_codebook(count, dim))[:, 1:]], 1)

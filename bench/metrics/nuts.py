"""Draws of the true posterior by Hamiltonian Monte Carlo, where a grid is too expensive."""

from __future__ import annotations

from dataclasses import dataclass
from threading import RLock

import torch
from torch import Tensor

from bench.metrics.shared import UNSHARED, Shared
from datasets.base import Problem, stream

CHAINS = 4
WARM_UP = 300
DRAWS = (500, 2000)
MOST_RHAT = 1.01
THIN_TO = 256
CODES = 2**16
WIDENED = 4.0
ENOUGH = 0.9


@dataclass(frozen=True)
class NutsDraws:
    """Draws of the true p(z | x) for some points, with convergence diagnostics.

    Args:
        draws: Draws of all chains together, (m, n, L).
        rhat: Split R-hat of each point, the worst over the axes of z, (n,).
        ess: Effective sample size of each point, the worst over the axes of z, (n,).
    """

    draws: Tensor
    rhat: Tensor
    ess: Tensor

    @property
    def converged(self) -> Tensor:
        """Which points have an R-hat below 1.01 (Vehtari et al. 2021), (n,)."""
        return self.rhat < MOST_RHAT

    def rows(self) -> list[tuple[int, float, float, list[float]]]:
        """Rows (point, R-hat, effective sample size, z), one for each draw."""
        by_point = zip(self.rhat.tolist(), self.ess.tolist(), self.draws.transpose(0, 1).tolist(), strict=True)
        return [(i, rhat, ess, z) for i, (rhat, ess, draws) in enumerate(by_point) for z in draws]


def nuts_draws(problem: Problem, x: Tensor, seed: int, shared: Shared = UNSHARED) -> NutsDraws:
    """Draws of the true p(z | x) by Pyro's NUTS (Hoffman & Gelman 2014), with 4 chains per point.

    All points and chains are independent and form one target, so that a step of the sampler is one call of the decoder.
    Chains start at prior draws weighted by the likelihood at four times the noise variance: in every relevant mode, and
    overdispersed. If more than a tenth of the points have not converged after 500 draws per chain, 2,000 are drawn. All
    methods at a seed are scored with the same draws.

    Args:
        problem: The data source.
        x: Points, (n, D).
        seed: The seed of the chains.
        shared: Where the draws are kept for other runs.
    """
    name = f"NUTS {problem.name} {seed}"
    return NutsDraws(**shared.found(name, [x], lambda: vars(_drawn(problem, x, seed))))


def _drawn(problem: Problem, x: Tensor, seed: int) -> NutsDraws:
    generator = stream(problem.name, seed, "NUTS")
    codes = torch.randn(CODES, problem.latent_dim, generator=generator, dtype=torch.float64)
    value = problem.likelihood.compared(x, problem.decoder(codes))
    weight = torch.softmax(value / WIDENED, 1)
    start = codes[torch.multinomial(weight, CHAINS, replacement=True, generator=generator).T]
    for count in DRAWS:
        found = _diagnosed(_sample(problem, x, start, count, seed))
        if found.converged.double().mean() >= ENOUGH:
            break
    return found


def _sample(problem: Problem, x: Tensor, start: Tensor, count: int, seed: int) -> Tensor:
    """Draws (count, chains, n, L)."""
    from pyro.infer.mcmc import MCMC, NUTS
    from tqdm import tqdm

    # Pyro's progress bar, even if disabled, would take a lock between processes that a worker leaves behind.
    tqdm.set_lock(RLock())

    def potential(parameters: dict[str, Tensor]) -> Tensor:
        z = parameters["z"]
        outputs = problem.decoder(z)
        # As one vector, in which all points and chains are coordinates.
        deviance = problem.likelihood.deviance(x.expand_as(outputs).flatten(), outputs.flatten())
        return deviance / (2 * problem.likelihood.dispersion) + z.square().sum() / 2

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(stream(problem.name, seed, "NUTS").initial_seed())
        sampler = MCMC(
            NUTS(potential_fn=potential),
            num_samples=count,
            warmup_steps=WARM_UP,
            initial_params={"z": start},
            disable_progbar=True,
        )
        sampler.run()
    return sampler.get_samples()["z"]


def _diagnosed(draws: Tensor) -> NutsDraws:
    """Diagnostics of draws (count, chains, n, L), and the draws of all chains together, thinned."""
    from pyro.ops.stats import effective_sample_size, split_gelman_rubin

    rhat = split_gelman_rubin(draws, chain_dim=1, sample_dim=0).amax(-1)
    ess = effective_sample_size(draws, chain_dim=1, sample_dim=0).amin(-1)
    together = draws.flatten(0, 1)
    return NutsDraws(together[:: max(1, len(together) // THIN_TO)][:THIN_TO], rhat, ess)

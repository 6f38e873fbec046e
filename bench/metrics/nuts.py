"""The true model's posterior by Hamiltonian Monte Carlo, where no grid can hold it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from threading import RLock

import torch
from torch import Tensor

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
class Reference:
    """Draws of p(z | x) of the true model for certain data, with what tells whether to trust them.

    draws: (m, n, L), all chains together. rhat, ess: split R-hat and effective sample size of each datum, (n,), the
    worst over the axes of z.
    """

    draws: Tensor
    rhat: Tensor
    ess: Tensor

    @property
    def converged(self) -> Tensor:
        """Which data have R-hat below 1.01 (Vehtari et al. 2021), (n,)."""
        return self.rhat < MOST_RHAT

    def rows(self) -> list[tuple[int, float, float, list[float]]]:
        """(Datum, R-hat, effective sample size, z), a row for each draw."""
        by_datum = zip(self.rhat.tolist(), self.ess.tolist(), self.draws.transpose(0, 1).tolist(), strict=True)
        return [(i, rhat, ess, z) for i, (rhat, ess, draws) in enumerate(by_datum) for z in draws]


def reference_posterior(problem: Problem, x: Tensor, seed: int) -> Reference:
    """Draws of p(z | x) for x (n, D) by Pyro's NUTS (Hoffman & Gelman 2014), with 4 chains per datum.

    The data and chains, which do not depend on one another, are one target, so that a step of the sampler is one call
    of the decoder. Chains start at prior draws weighted by the likelihood at four times the noise: in each mode that
    matters, and too widely. If more than a tenth of the data have not converged after 500 draws per chain, 2,000 are
    taken.
    """
    return _reference(_Target(x.numpy().tobytes(), seed, problem, x))


@dataclass(frozen=True)
class _Target:
    """Data whose posterior is asked for; two are the same if data and seed are."""

    content: bytes
    seed: int
    problem: Problem = field(compare=False)
    x: Tensor = field(compare=False)


@lru_cache(maxsize=4)
def _reference(target: _Target) -> Reference:
    """Computed once per process, as all methods at a seed are scored against it."""
    problem, x, seed = target.problem, target.x, target.seed
    generator = stream(problem.name, seed, "NUTS")
    codes = torch.randn(CODES, problem.latent_dim, generator=generator, dtype=torch.float64)
    squared = torch.cdist(x, problem.decoder(codes)).square()
    weight = torch.softmax(-squared / (2 * WIDENED * problem.noise_variance), 1)
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

    # The bar that Pyro makes, shown or not, would take a lock between processes, which a worker leaves behind.
    tqdm.set_lock(RLock())

    def potential(parameters: dict[str, Tensor]) -> Tensor:
        z = parameters["z"]
        return (x - problem.decoder(z)).square().sum() / (2 * problem.noise_variance) + z.square().sum() / 2

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


def _diagnosed(draws: Tensor) -> Reference:
    """Draws (count, chains, n, L) with their diagnostics, all chains together and thinned."""
    from pyro.ops.stats import effective_sample_size, split_gelman_rubin

    rhat = split_gelman_rubin(draws, chain_dim=1, sample_dim=0).amax(-1)
    ess = effective_sample_size(draws, chain_dim=1, sample_dim=0).amin(-1)
    together = draws.flatten(0, 1)
    return Reference(together[:: max(1, len(together) // THIN_TO)][:THIN_TO], rhat, ess)

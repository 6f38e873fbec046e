"""How long MAPA's index posterior takes, by the number of training points, and a likelihood by quadrature."""

import torch

from bench.registry.registry import registry
from datasets.base import stream
from datasets.quadrature import log_marginal
from methods.contract.method import NullLedger
from methods.mapa import MAPA, deconvolution
from methods.mapa.index import log_index_posterior

SURFACE = "swiss_roll"
POINTS = 500


def sample(name: str, n: int) -> torch.Tensor:
    """The same n draws of a problem at any commit, (n, D)."""
    return registry().make_problem(name, None).sample(n, stream(name, 0, "benchmark"))


def estimate(x: torch.Tensor) -> deconvolution.Mixture:
    """The mixture that MAPA estimates from points (N, D) of the surface, with its default hyperparameters."""
    mapa, noise, ledger = MAPA(), registry().make_problem(SURFACE, None).noise_variance, NullLedger()
    few = deconvolution.thinned(x, mapa.atoms, torch.Generator().manual_seed(0))
    mixture = deconvolution.estimate(few, noise, mapa.smoothing, 0, mapa.atom_steps, ledger)
    return deconvolution.sharpened(mixture, x, noise, ledger)


class Posterior:
    """Few samples, as each is long and has little noise."""

    repeat = (2, 5, 3.0)
    rounds = 1
    warmup_time = 0.0


class Signals(Posterior):
    """The mixture of N points; at the largest N, a k-d tree finds the atoms that matter to a point."""

    params = (500, 2000, 8000, 32_000)
    param_names = ("N",)

    def setup(self, n: int) -> None:
        self.x = sample(SURFACE, n).double()

    def time_signals(self, _: int) -> None:
        estimate(self.x)


class IndexPosterior(Posterior):
    """log p(i | x) of 500 points x over all N."""

    params = (500, 2000, 8000)
    param_names = ("N",)

    def setup(self, n: int) -> None:
        self.x = sample(SURFACE, n).double()
        self.log_index = log_index_posterior(estimate(self.x), self.x)

    def time_log_index(self, _: int) -> None:
        self.log_index(self.x[:POINTS])


class Quadrature(Posterior):
    """log p(x) of 500 points x under the true model, to a thousandth of a nat: a curve, and a surface."""

    params = ("figure8", SURFACE)
    param_names = ("dataset",)

    def setup(self, name: str) -> None:
        self.problem, self.x = registry().make_problem(name, None), sample(name, POINTS)

    def time_quadrature(self, _: str) -> None:
        log_marginal(self.problem.decoder, self.problem.noise_variance, self.x, self.problem.latent_dim)

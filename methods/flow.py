"""The VAE whose approximate posterior is a normalising flow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.special import ndtri
from zuko.flows import NSF
from zuko.lazy import LazyComposedTransform

from methods.common.posteriors import Amortised
from methods.common.training import Objective, train_jointly
from methods.contract.decoder import GaussianModel, Standardiser, mlp, standard_normal_log_prob
from methods.contract.method import Fitted, Method, Task, require
from methods.contract.search_space import Choice, Range, Uniform
from methods.vae import VAE

CONTEXT = 32
HIDDEN = (64,)
LEAST_WEIGHT = 0.01


class SplineFlow(Amortised):
    """q(z | x) as the law of z = mu(x) + sigma(x) g(e; c(x)), e ~ N(0, I).

    g is an autoregressive map of rational-quadratic splines on [-5, 5] (Durkan et al. 2019, arXiv 1906.04032) by zuko,
    whose conditioner sees the features c; mu, log sigma and c are outputs of one network.
    """

    def __init__(self, network: nn.Sequential, units: Standardiser, spline: LazyComposedTransform, latent_dim: int):
        super().__init__(network, units)
        self.spline, self.latent_dim = spline, latent_dim

    def push(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The codes that base noise (m, n, L) becomes for data x (n, D), (m, n, L), and their log-densities (m, n)."""
        outputs = self.outputs(x)
        mean, log_scale, features = outputs.tensor_split([self.latent_dim, 2 * self.latent_dim], -1)
        bent, log_slope = self.spline(features).call_and_ladj(noise)
        return mean + log_scale.exp() * bent, standard_normal_log_prob(noise) - log_slope - log_scale.sum(-1)

    def sample(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws (count, n, L) and their log-densities (count, n)."""
        return self.push(x, torch.randn(count, len(x), self.latent_dim, generator=generator, device=x.device))

    def from_uniform(self, x: Tensor, u: Tensor) -> Tensor:
        """What the quantiles of u along each axis of the base become: (n, D), (m, K) with K >= L -> (m, n, L)."""
        noise = ndtri(u[:, : self.latent_dim]).to(self.units.scale)
        return self.push(x, noise[:, None].expand(-1, len(x), -1))[0]


def build_flow(
    model: GaussianModel,
    generator: torch.Generator,
    bins: int,
    hidden: Sequence[int] = (64, 64),
    activation: str = "tanh",
) -> SplineFlow:
    """A flow for `model`, at random initial weights but for its splines, which are the identity: q is Gaussian."""
    network = mlp([model.data_dim, *hidden, 2 * model.latent_dim + CONTEXT], activation, generator)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):  # zuko draws its weights from the global generator
        torch.default_generator.manual_seed(seed)
        flow = NSF(model.latent_dim, CONTEXT, bins=bins, transforms=1, hidden_features=HIDDEN, activation=nn.Tanh)
    for layer in flow.transform.transforms:
        for parameter in layer.hyper[-1].parameters():
            nn.init.zeros_(parameter)
    return SplineFlow(network, model.units, flow.transform.to(generator.device), model.latent_dim)


def tempered_elbo(model: GaussianModel, posterior: SplineFlow, x: Tensor, noise: Tensor, weight: float) -> Objective:
    """For each x, the mean over base noise of log p(x, z) - log q(z | x): (n, D), (m, n, L) -> (n,) in nats.

    What is differentiated has `weight` times log p(x, z) instead: with less than 1, q first spreads over all modes
    before it narrows (Rezende & Mohamed 2015, eqs. 15 and 20).
    """
    z, log_q = posterior.push(x, noise)
    log_joint = model.log_likelihood(x, z) + standard_normal_log_prob(z)
    return Objective((log_joint - log_q).mean(0).detach(), (weight * log_joint - log_q).mean(0))


@dataclass(frozen=True)
class FlowVAE(Method):
    """Joint training of the decoder and a conditional spline flow on the ELBO (Rezende & Mohamed 2015, algorithm 1).

    bins: K, pieces of each spline. samples: codes per datum and step. warm_up: share of the steps over which the weight
    of log p(x, z) rises from 0.01 to 1. steps, batch_size, learning_rate: as for the VAE.
    """

    bins: int = 8
    samples: int = 4
    warm_up: float = 0.3
    steps: int = 6000
    batch_size: int = 100
    learning_rate: float = 1e-2

    search: ClassVar[Mapping[str, Range]] = {
        **VAE.search,
        "bins": Choice((4, 8, 16)),
        "samples": Choice((1, 2, 4)),
        "warm_up": Uniform(0.05, 0.6),
    }

    def __post_init__(self) -> None:
        require(self, positive=("bins", "samples", "warm_up", "steps", "batch_size", "learning_rate"))

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yields after every step."""
        posterior = build_flow(task.model, task.generator, self.bins)
        weights = (min(LEAST_WEIGHT + step / (self.warm_up * self.steps), 1.0) for step in count())

        def objective(x: Tensor) -> Objective:
            shape = (self.samples, len(x), task.latent_dim)
            noise = torch.randn(shape, generator=task.generator, device=x.device)
            return tempered_elbo(task.model, posterior, x, noise, next(weights))

        yield from train_jointly(task, posterior, objective, self.steps, self.batch_size, self.learning_rate)

"""The VAE whose approximate posterior is a normalising flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.special import ndtri
from zuko.flows import NSF
from zuko.lazy import LazyComposedTransform

from methods.common.amortised import AmortisedMethod
from methods.common.posteriors import Amortised
from methods.common.training import Objective
from methods.contract.architecture import ACTIVATION
from methods.contract.decoder import GenerativeModel, Standardiser, mlp, standard_normal_log_prob
from methods.contract.method import require
from methods.contract.search_space import Choice, Range
from methods.vae import VAE

Distribution.set_default_validate_args(__debug__)  # importing zuko turns the checks off for the whole process

CONTEXT = 32
CONDITIONER = (64,)
LEAST_WEIGHT = 0.01


class SplineFlow(Amortised):
    """q(z | x) is the distribution of z = mu(x) + sigma(x) g(e; c(x)), e ~ N(0, I).

    g is an autoregressive map of rational-quadratic splines on [-5, 5] (Durkan et al. 2019, arXiv 1906.04032) from
    zuko, conditioned on the features c. One network gives mu, log sigma and c.

    Args:
        network: From x in standard units to mu, log sigma and c.
        units: The map from data units to standard units.
        spline: g.
        latent_dim: L.
    """

    def __init__(self, network: nn.Sequential, units: Standardiser, spline: LazyComposedTransform, latent_dim: int):
        super().__init__(network, units)
        self.spline, self.latent_dim = spline, latent_dim

    def push(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Map base noise to codes.

        Args:
            x: Data, (n, D).
            noise: Standard normal draws, (m, n, L).

        Returns:
            Codes, (m, n, L), and log q(z | x) of each in nats, (m, n).
        """
        outputs = self.outputs(x)
        mean, log_scale, features = outputs.tensor_split([self.latent_dim, 2 * self.latent_dim], -1)
        bent, log_slope = self.spline(features).call_and_ladj(noise)
        return mean + log_scale.exp() * bent, standard_normal_log_prob(noise) - log_slope - log_scale.sum(-1)

    def sample(self, x: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws (count, n, L) and their log-densities (count, n)."""
        return self.push(x, torch.randn(count, len(x), self.latent_dim, generator=generator, device=x.device))

    def log_prob(self, z: Tensor, x: Tensor) -> Tensor:
        """The density of every q(z | x) at every code, by the inverse of the splines: (m, L), (n, D) -> (m, n)."""
        mean, log_scale, features = self.outputs(x).tensor_split([self.latent_dim, 2 * self.latent_dim], -1)
        noise, log_slope = self.spline(features).inv.call_and_ladj((z.to(mean)[:, None] - mean) / log_scale.exp())
        return standard_normal_log_prob(noise) + log_slope - log_scale.sum(-1)

    def from_uniform(self, x: Tensor, u: Tensor) -> Tensor:
        """Map the normal quantiles of u to codes: (n, D), (m, K) with K >= L -> (m, n, L)."""
        noise = ndtri(u[:, : self.latent_dim]).to(self.units.scale)
        return self.push(x, noise[:, None].expand(-1, len(x), -1))[0]


def build_flow(model: GenerativeModel, generator: torch.Generator, bins: int) -> SplineFlow:
    """A flow at random initial weights whose splines are the identity, so that q is Gaussian at first.

    Args:
        model: The generative model, which gives the sizes of input, hidden layers and codes.
        generator: The source of the initial weights.
        bins: Number of pieces of each spline.
    """
    network = mlp([model.data_dim, *model.hidden, 2 * model.latent_dim + CONTEXT], ACTIVATION, generator)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):  # zuko draws its weights from the global generator
        torch.default_generator.manual_seed(seed)
        flow = NSF(model.latent_dim, CONTEXT, bins=bins, transforms=1, hidden_features=CONDITIONER, activation=nn.Tanh)
    for layer in flow.transform.transforms:
        for parameter in layer.hyper[-1].parameters():
            nn.init.zeros_(parameter)
    return SplineFlow(network, model.units, flow.transform.to(generator.device), model.latent_dim)


def tempered_elbo(model: GenerativeModel, posterior: SplineFlow, x: Tensor, noise: Tensor, weight: float) -> Objective:
    """The ELBO, with a surrogate that weights log p(x, z) (Rezende & Mohamed 2015, eqs. 15 and 20).

    With a weight below 1, q first spreads over all modes before it narrows.

    Args:
        model: The generative model.
        posterior: q(z | x).
        x: Data, (n, D).
        noise: Standard normal draws, (m, n, L). The bound is a mean over the m draws.
        weight: The factor of log p(x, z) in the surrogate.
    """
    z, log_q = posterior.push(x, noise)
    log_joint = model.log_likelihood(x, z) + standard_normal_log_prob(z)
    return Objective((log_joint - log_q).mean(0).detach(), (weight * log_joint - log_q).mean(0))


@dataclass(frozen=True)
class FlowVAE(AmortisedMethod):
    """Joint training of the decoder and a conditional spline flow on the ELBO (Rezende & Mohamed 2015, algorithm 1).

    Args:
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Learning rate.
        schedule: 'anytime', or 'cosine' for ablation.
        steepness: Factor on the initial weights and biases of the decoder's first layer.
        restarts: Number of starts, of which the best after a tenth of the steps goes on.
        bins: K, number of pieces of each spline.
        samples: Number of codes per training point and step.
        warm_up: Number of steps during which the weight of log p(x, z) rises from 0.01 to 1; below 1, the share of all
            steps.
    """

    stacks: ClassVar[bool] = False
    search: ClassVar[Mapping[str, Range]] = {
        **VAE.search,
        "bins": Choice((4, 8, 16)),
        "samples": Choice((1, 2, 4)),
        "warm_up": Choice((100.0, 300.0, 1000.0)),
    }

    bins: int = 8
    samples: int = 4
    warm_up: float = 300.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, positive=("bins", "samples", "warm_up"))

    @property
    def draws(self) -> int:
        """Draws of noise for each x."""
        return self.samples

    def encoder(self, model: GenerativeModel, generator: torch.Generator) -> SplineFlow:
        """A flow that is Gaussian at first."""
        return build_flow(model, generator, self.bins)

    def objective(
        self, model: GenerativeModel, posterior: SplineFlow, x: Tensor, noise: Tensor, step: int
    ) -> Objective:
        """The ELBO, a mean over the draws for each x."""
        rise = self.warm_up if self.warm_up >= 1 else self.warm_up * self.steps
        return tempered_elbo(model, posterior, x, noise, min(LEAST_WEIGHT + step / rise, 1.0))

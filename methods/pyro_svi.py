"""Reference implementations of `vae` and `iwae` by Pyro (Bingham et al. 2019).

Networks, batches and the rule of stopping are those of `vae` and `iwae`. The objective, its draws and its gradient are
Pyro's, the optimiser that of the package `schedulefree`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ELBO, SVI, RenyiELBO, Trace_ELBO
from pyro.optim import PyroOptim
from pyro.params.param_store import StateDict
from schedulefree import AdamWScheduleFree
from torch import Tensor

from methods.common.amortised import VALIDATE_EVERY, compared
from methods.common.held_out import MOST_DIMENSIONS, POINTS, HeldOut
from methods.common.optimisers import SECOND_MOMENT, Anytime
from methods.common.posteriors import build_encoder
from methods.common.replicas import Networks
from methods.common.training import batches, elbo
from methods.contract.decoder import GaussianModel, GenerativeModel
from methods.contract.method import Fitted, Method, Role, Task, require
from methods.iwae import importance_bound
from methods.likelihoods import PerCoordinateGaussian

DISCRETE = {
    "bernoulli": lambda logits: dist.Bernoulli(logits=logits),
    "poisson": lambda log_rates: dist.Poisson(log_rates.exp()),
}
Bound = Callable[[GenerativeModel, Any, Tensor, Tensor], Tensor]


def _skip(family: str) -> str | None:
    return "its Pyro model has one noise variance" if family == PerCoordinateGaussian.name else None


def generative(model: GenerativeModel, x: Tensor) -> None:
    """p(z) p(x | z) for a batch x (n, D), as a Pyro model."""
    pyro.module("decoder", model.network)
    if isinstance(model, GaussianModel):
        log_noise = pyro.param("log_noise", model.log_noise) if model.learns_noise else model.log_noise
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), model.latent_dim), 1.0).to_event(1))
        outputs = model.decode(z)
        family = (
            dist.Normal(outputs, (log_noise / 2).exp())
            if isinstance(model, GaussianModel)
            else DISCRETE[model.likelihood.name](outputs)
        )
        pyro.sample("x", family.to_event(1), obs=x)


def guide(posterior: Any, x: Tensor) -> None:
    """q(z | x) for a batch x (n, D), as a Pyro guide."""
    pyro.module("encoder", posterior.network)
    with pyro.plate("data", len(x)):
        mean, log_scale = posterior.moments(x)
        pyro.sample("z", dist.Normal(mean, log_scale.exp()).to_event(1))


@contextmanager
def contained(generator: torch.Generator, parameters: StateDict) -> Iterator[None]:
    """A context in which torch's global generator and Pyro's global parameters are the given ones.

    On exit the given ones have the new state, and the global ones are as before.

    Args:
        generator: The generator whose stream torch's global generator continues.
        parameters: The state of Pyro's parameter store.
    """
    shared = torch if generator.device.type == "cpu" else torch.cuda
    outside = shared.get_rng_state()
    shared.set_rng_state(generator.get_state())
    try:
        # Whether arguments are checked is part of the cost, and other libraries change it for the whole process.
        with pyro.validation_enabled(), pyro.get_param_store().scope(parameters):
            yield
    finally:
        generator.set_state(shared.get_rng_state())
        shared.set_rng_state(outside)


class ScheduleFreeAdam(AdamWScheduleFree):  # type: ignore[misc]
    """Adam of the package `schedulefree`, ready to take steps, as Pyro makes one for each parameter."""

    def __init__(self, parameters: list[Tensor], **settings: Any):
        super().__init__(parameters, **settings)
        self.train()


@contextmanager
def averaged(optimiser: PyroOptim) -> Iterator[None]:
    """A context in which the parameters are the means of their iterates."""
    each = list(optimiser.optim_objs.values())
    for one in each:
        one.eval()
    try:
        yield
    finally:
        for one in each:
            one.train()


def train(
    task: Task,
    objective: ELBO,
    steps: int,
    batch_size: int,
    learning_rate: float,
    bound: Bound = elbo,
    shape: tuple[int, ...] = (),
) -> Iterator[Fitted]:
    """Train the model of a task and an encoder by stochastic variational inference.

    Pyro's objective is a sum over a batch and ours a mean. Adam is invariant to the scale. Pyro sums bounds over data,
    so that ours are looked at on validation points. What is shown follows the rule of `vae` and `iwae`.

    Args:
        task: The fitting problem.
        objective: Pyro's objective.
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Learning rate.
        bound: The bound of each validation point, of a model, a posterior, points and noise (above L = 2).
        shape: The shape of the noise before its axes of points and codes.

    Yields:
        The fitted model, after every step.
    """
    posterior = build_encoder(task.model, task.generator)
    task.ledger.watch(encoder=posterior.network)
    shown = Networks(task.model, posterior)
    live = copy.deepcopy(shown)
    settings = {"lr": learning_rate, "betas": (Anytime.beta, SECOND_MOMENT), "r": Anytime.power, "foreach": False}
    optimiser = PyroOptim(ScheduleFreeAdam, settings)
    inference = SVI(lambda x: generative(live.model, x), lambda x: guide(live.encoder, x), optimiser, objective)
    parameters: StateDict = {"params": {}, "constraints": {}}
    validation = task.validation[:POINTS]
    state = task.generator.get_state()
    device = task.generator.device
    noise = torch.randn(*shape, len(validation), task.latent_dim, generator=task.generator, device=device)
    task.generator.set_state(state)
    best, best_scores = live.state_dict(), torch.full((1, len(validation)), -math.inf, device=device)
    by_likelihood = task.latent_dim <= MOST_DIMENSIONS
    if by_likelihood:
        held_out = task.ledger.run("validation points", HeldOut, task.validation, task.latent_dim)
        best_scores = best_scores[:, :1].double()

    def step(index: Tensor) -> None:
        with contained(task.generator, parameters):
            inference.step(task.train[index])

    def look(best_scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if by_likelihood:
            found = torch.full_like(best_scores, held_out.log_likelihood(live.model))
            return found, found >= best_scores, found < best_scores
        with torch.no_grad():
            found = bound(live.model, live.encoder, validation, noise)[None]
            return found, *compared(best_scores, found)

    fitted = Fitted(task.model, posterior)
    indices = batches(len(task.train), batch_size, task.generator, task.ledger)
    worse = False
    for i, index in enumerate(islice(indices, steps), 1):
        task.ledger.run("joint step" if i > 1 else "first step", step, index)  # the first makes the optimisers
        with averaged(optimiser):
            if i % VALIDATE_EVERY == 0:
                scores, gained, lost = task.ledger.run("validation", look, best_scores)
                worse = bool(lost)
                if gained:
                    best, best_scores = copy.deepcopy(live.state_dict()), scores
                if worse:
                    shown.load_state_dict(best)
            if not worse:
                shown.load_state_dict(live.state_dict())
        yield fitted


@dataclass(frozen=True)
class PyroVAE(Method):
    """`vae` by Pyro's SVI with Trace_ELBO, which estimates the KL to the prior by draws; ours has the closed form.

    Args:
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Learning rate.
    """

    role: ClassVar[Role] = "reference"
    colour_group: ClassVar[str] = "vae"

    steps: int = 6000
    batch_size: int = 100
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        require(self, positive=("steps", "batch_size", "learning_rate"))

    def skip_likelihood(self, family: str, latent_dim: int) -> str | None:  # noqa: ARG002
        """The reason why data of a family cannot be fitted, or None."""
        return _skip(family)

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yield after every step."""
        yield from train(task, Trace_ELBO(max_plate_nesting=1), self.steps, self.batch_size, self.learning_rate)


@dataclass(frozen=True)
class PyroIWAE(Method):
    """`iwae` by Pyro's SVI with the Renyi bound of order 0, the importance weighted bound (Li & Turner 2016).

    Args:
        samples: K, number of codes per training point and step.
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Learning rate.
    """

    role: ClassVar[Role] = "reference"
    colour_group: ClassVar[str] = "iwae"

    samples: int = 10
    steps: int = 6000
    batch_size: int = 100
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        require(self, positive=("samples", "steps", "batch_size", "learning_rate"))

    def skip_likelihood(self, family: str, latent_dim: int) -> str | None:  # noqa: ARG002
        """The reason why data of a family cannot be fitted, or None."""
        return _skip(family)

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yield after every step."""
        bound = RenyiELBO(alpha=0, num_particles=self.samples, vectorize_particles=True, max_plate_nesting=1)
        settings = (self.steps, self.batch_size, self.learning_rate)
        yield from train(task, bound, *settings, importance_bound, (self.samples,))

"""Reference implementations of `vae` and `iwae` by Pyro (Bingham et al. 2019).

Networks, batches and the learning rate schedule are those of `vae` and `iwae`. The objective, its draws, its gradient
and the optimiser step are Pyro's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ELBO, SVI, RenyiELBO, Trace_ELBO
from pyro.optim.lr_scheduler import PyroLRScheduler
from pyro.params.param_store import StateDict
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from methods.common.posteriors import DiagonalGaussian, build_encoder
from methods.common.training import batches, cosine
from methods.contract.decoder import GaussianModel
from methods.contract.method import Fitted, Method, Task, require


def generative(model: GaussianModel, x: Tensor) -> None:
    """p(z) p(x | z) for a batch x (n, D), as a Pyro model."""
    pyro.module("decoder", model.network)
    log_noise = pyro.param("log_noise", model.log_noise) if model.learns_noise else model.log_noise
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), model.latent_dim), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(model.decode(z), (log_noise / 2).exp()).to_event(1), obs=x)


def guide(posterior: DiagonalGaussian, x: Tensor) -> None:
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
        with pyro.get_param_store().scope(parameters):
            yield
    finally:
        generator.set_state(shared.get_rng_state())
        shared.set_rng_state(outside)


def train(task: Task, objective: ELBO, steps: int, batch_size: int, learning_rate: float) -> Iterator[Fitted]:
    """Train the model of a task and an encoder by stochastic variational inference.

    Pyro's objective is a sum over a batch and ours a mean. Adam is invariant to the scale.

    Args:
        task: The fitting problem.
        objective: Pyro's objective.
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Initial learning rate of Adam. It falls to zero along half a cosine.

    Yields:
        The fitted model, after every step.
    """
    posterior = build_encoder(task.model, task.generator)
    task.ledger.watch(encoder=posterior.network)
    optimiser = {"optimizer": torch.optim.Adam, "optim_args": {"lr": learning_rate, "fused": True}}
    schedule = PyroLRScheduler(LambdaLR, optimiser | {"lr_lambda": lambda step: cosine(step, steps)})
    inference = SVI(lambda x: generative(task.model, x), lambda x: guide(posterior, x), schedule, objective)
    parameters: StateDict = {"params": {}, "constraints": {}}

    def step(index: Tensor) -> None:
        with contained(task.generator, parameters):
            inference.step(task.train[index])
        schedule.step()

    fitted = Fitted(task.model, posterior)
    indices = batches(len(task.train), batch_size, task.generator, task.ledger)
    for i, index in enumerate(islice(indices, steps)):
        task.ledger.run("joint step" if i else "first step", step, index)  # the first has no gradients to zero
        yield fitted


@dataclass(frozen=True)
class PyroVAE(Method):
    """`vae` by Pyro's SVI with Trace_ELBO, which estimates the KL to the prior by draws; ours has the closed form.

    Args:
        steps: Number of gradient steps.
        batch_size: Training points per step.
        learning_rate: Initial learning rate of Adam. It falls to zero along half a cosine.
    """

    colour_group: ClassVar[str] = "vae"

    steps: int = 6000
    batch_size: int = 100
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        require(self, positive=("steps", "batch_size", "learning_rate"))

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
        learning_rate: Initial learning rate of Adam. It falls to zero along half a cosine.
    """

    colour_group: ClassVar[str] = "iwae"

    samples: int = 10
    steps: int = 6000
    batch_size: int = 100
    learning_rate: float = 1e-2

    def __post_init__(self) -> None:
        require(self, positive=("samples", "steps", "batch_size", "learning_rate"))

    def fit(self, task: Task) -> Iterator[Fitted]:
        """Yield after every step."""
        bound = RenyiELBO(alpha=0, num_particles=self.samples, vectorize_particles=True, max_plate_nesting=1)
        yield from train(task, bound, self.steps, self.batch_size, self.learning_rate)

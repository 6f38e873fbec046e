"""What a step of a method takes against a plain loop in torch and against Pyro, as a ratio within one run."""

import math
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from bench.fit.task import make_task
from bench.registry.registry import registry
from bench.store.records import RunSpec
from datasets.base import draw
from methods.contract.method import NullLedger

ALONE, STACKED = 1.0, 0.4
STEPS, FIRST = 60, 5
BATCH = 100
BLOCK = 10


def tasks(name, seeds):
    """The method, with steps for as long as anyone measures, and its tasks for 500 training points of the circle."""
    method, problem = registry().make_method(name, {"steps": 10**6}), registry().make_problem("circle", None)
    specs = [RunSpec(dataset="circle", method=name, seed=seed, n_train=500, n_test=1) for seed in seeds]
    splits = [draw(problem, seed, 500, 500, 1) for seed in seeds]
    return method, [make_task(method, problem, *each, NullLedger()) for each in zip(splits, specs, strict=True)]


def alone(name):
    """A fit of one seed."""
    method, (task,) = tasks(name, [0])
    return method.fit(task)


def stacked(name):
    """A fit of ten seeds as one program."""
    method, every = tasks(name, range(BLOCK))
    return iter(method.fit_together(every))


def plain():
    """The same VAE as anyone writes it: modules, autograd, torch's fused Adam, one random batch a step."""
    _, (task,) = tasks("vae", [0])
    x, noise = task.train, task.model.variance()
    shift, scale_of_x = x.mean(0), x.std()
    constant = -x.shape[1] / 2 * math.log(2 * math.pi * noise)
    encoder, decoder = (
        nn.Sequential(nn.Linear(a, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, b))
        for a, b in ((x.shape[1], 2), (1, x.shape[1]))
    )
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2, fused=True)
    while True:
        batch = x[torch.randint(len(x), (BATCH,))]
        optimiser.zero_grad()
        mean, log_scale = encoder((batch - shift) / scale_of_x).chunk(2, -1)
        scale = log_scale.exp()
        z = mean + scale * torch.randn_like(scale)
        decoded = shift + scale_of_x * decoder(z)
        likelihood = constant - (batch - decoded).square().sum(-1) / (2 * noise)
        kl = (mean.square() + scale.square() - 1).sum(-1) / 2 - log_scale.sum(-1)
        (kl - likelihood).mean().backward()
        optimiser.step()
        yield


def step_times(*begin):
    """Seconds of the fastest step of several fits, which take their steps in turn.

    Where its tensors lie in memory makes a fit faster or slower for all its steps. So fits are begun anew, each time
    among other tensors, of random sizes.
    """
    _among = [torch.empty(size) for size in np.random.default_rng().integers(1, 20_000, 16).tolist()]
    fits = [each() for each in begin]
    seconds = np.empty((STEPS, len(fits)))
    for row in seconds:
        for i, fit in enumerate(fits):
            start = time.perf_counter()
            next(fit)
            row[i] = time.perf_counter() - start
    return seconds[FIRST:].min(0)


@pytest.mark.parametrize("name", ["vae", "iwae"])
def test_a_step_is_not_slower_than_that_of_pyro(name, fastest):
    """All steps do the same work, so that the fastest of many is free of what else the machine does."""
    fits = partial(alone, name), partial(alone, f"pyro-{name}")
    ours, theirs = fastest(lambda: step_times(*fits), lambda ours, theirs: ours <= ALONE * theirs)
    assert ours <= ALONE * theirs


def test_a_step_is_not_slower_than_that_of_a_plain_loop(fastest):
    fits = partial(alone, "vae"), plain
    ours, theirs = fastest(lambda: step_times(*fits), lambda ours, theirs: ours <= ALONE * theirs)
    assert ours <= ALONE * theirs


@pytest.mark.parametrize("name", ["vae", "iterative"])
def test_a_step_of_ten_seeds_takes_four_tenths_of_ten_plain_steps(name, fastest):
    fits = partial(stacked, name), plain
    ours, theirs = fastest(lambda: step_times(*fits), lambda ours, theirs: ours / BLOCK <= STACKED * theirs)
    assert ours / BLOCK <= STACKED * theirs

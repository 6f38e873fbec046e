"""Small fitting problems, without the harness."""

import dataclasses

import pyro
import pytest
import torch

import datasets
from datasets.base import draw, stream
from methods.contract.decoder import build_model
from methods.contract.method import NullLedger, Task


@pytest.fixture(scope="session")
def make_task():
    """A function that makes a task: make_task("circle", 60), or make_task(x) for data of one's own."""

    def make(data, n=60, *, noise="known", latent_dim=None, seed=0, ledger=None, **architecture):
        if isinstance(data, str):
            problem = datasets.load(data, latent_dim)
            split = draw(problem, seed, n, n, 1)
            train, validation = split.train.float(), split.validation.float()
            latent_dim, known = problem.latent_dim, problem.noise_variance
        else:
            train = validation = data.float()
            known = noise
        weights, draws = stream("initial weights", seed, "decoder"), stream("training", seed, "draws")
        model = build_model(train, latent_dim, None if noise == "learned" else known, weights, **architecture)
        return Task(train, validation, model, draws, NullLedger() if ledger is None else ledger)

    return make


@pytest.fixture(scope="session")
def short():
    """A function that makes a method of few steps, of which each kind that it knows is taken."""

    def make(method, steps=60):
        few = {
            "steps": steps,
            "trial_steps": 10,
            "replacements": 1,
            "polish_steps": 10,
            "window": 2,
            "most_inner": 4,
            "box": 6.0,
        }
        names = {field.name for field in dataclasses.fields(method)}
        return dataclasses.replace(method, **{name: few[name] for name in names & few.keys()})

    return make


@pytest.fixture
def clean_pyro():
    """Pyro's parameters and torch's global generator as they were, before and after."""
    state = torch.get_rng_state()
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()
    torch.set_rng_state(state)

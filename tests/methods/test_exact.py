"""Maximum likelihood by quadrature: its gradient, that it cannot be cheated, and what it reaches."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

from datasets.quadrature import log_marginal
from methods import exact
from methods.common import mixture_likelihood
from methods.common.best_state import Best
from methods.common.latent_grid import codebook
from methods.common.mixture_likelihood import maximise_likelihood
from methods.contract.decoder import gaussian_log_prob, standard_normal_log_prob
from methods.contract.method import NullLedger
from methods.exact import Ascent, ExactMLE
from methods.mapa.polish import PolishedMAPA
from methods.vae import VAE

LINEAR = {"activation": "linear"}


def likelihood(model, x, tolerance=1e-3):
    """The mean log-likelihood of x, by quadrature."""
    with torch.no_grad():
        found = log_marginal(model.decode, model.variance(), x.double(), model.latent_dim, tolerance)
    return float(found.value.mean())


def validated_by_itself(task):
    """The task with its training points as validation points: nothing is stopped before its maximum."""
    return dataclasses.replace(task, validation=task.train)


def advanced(ascent, task, method):
    """The steps of a trial."""
    return ascent.advance(task, method, Best(task))


def perturbed(model, seed=0):
    """A copy of a model whose weights are half a standard deviation off."""
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in model.network.parameters():
            weights.add_(0.5 * weights.std() * torch.randn(weights.shape, generator=generator))
    return model


def highest(x, latent, noise):
    """The greatest mean log-likelihood of data x (N, D) under a linear model (Tipping & Bishop 1999, eq. 12)."""
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    noise = values[:-latent].mean() if noise is None else noise
    variances = np.concatenate([np.full(len(values) - latent, noise), values[-latent:].clip(noise)])
    return -0.5 * float((np.log(2 * np.pi * variances) + values / variances).sum())


@pytest.fixture
def gradient(monkeypatch):
    """A function: the gradient, for a model of a task, of what an ascent minimises, as one vector."""

    def of(task):
        found = []

        def first_step(parameters, loss, *_):
            found.extend(torch.autograd.grad(loss(), parameters))
            yield 0.0

        monkeypatch.setattr(mixture_likelihood, "lbfgs", first_step)
        for _ in advanced(Ascent(copy.deepcopy(task.model)), task, ExactMLE(box=0.5)):
            break
        return torch.cat([part.flatten() for part in found]).double()

    return of


def by_grid(model, x, nodes):
    """The same by a sum over a uniform grid of latent space, in double precision."""
    model = copy.deepcopy(model).double()
    axis = torch.linspace(-6, 6, nodes, dtype=torch.float64)
    z = torch.cartesian_prod(*[axis] * model.latent_dim).reshape(-1, model.latent_dim)
    joint = gaussian_log_prob(x.double()[:, None] - model.decode(z), model.log_noise) + standard_normal_log_prob(z)
    loss = -torch.logsumexp(joint + model.latent_dim * math.log(axis[1] - axis[0]), 1).mean()
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])


@pytest.mark.parametrize("noise", ["known", "learned"])
@pytest.mark.parametrize(("name", "nodes"), [("circle", 2001), ("torus", 161)])
def test_the_gradient_is_that_of_the_integral(name, nodes, noise, make_task, gradient):
    task = make_task(name, 12, noise=noise)
    maximise = maximise_likelihood(task.model, task.train, codebook(1000, task.latent_dim), NullLedger(), 20, 0)
    list(maximise)
    slope, expected = gradient(task), by_grid(task.model, task.train, nodes)
    assert (slope - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize(("name", "n"), [("spiral_dots", 100), ("s_curve", 300)])
def test_little_is_gained_between_the_codes(name, n, make_task):
    task = make_task(name, n)
    ascent, method = Ascent(copy.deepcopy(task.model)), ExactMLE(trial_steps=60)
    for _ in range(3):
        for _ in advanced(ascent, task, method):
            pass
    assert ascent.steps == 180
    *_, stated = maximise_likelihood(ascent.model, task.train, ascent.grid, NullLedger(), 1, 0.0)
    assert stated == pytest.approx(likelihood(ascent.model, task.train), abs=5e-3)


def test_much_would_be_gained_between_few_fixed_codes(make_task):
    task = make_task("spiral_dots", 100)
    grid = codebook(50, 1)
    *_, stated = maximise_likelihood(task.model, task.train, grid, NullLedger(), 240, 0.0)
    assert stated > likelihood(task.model, task.train) + 0.1


@pytest.mark.parametrize("noise", ["known", "learned"])
@pytest.mark.parametrize("latent", [1, 2])
def test_a_linear_model_reaches_the_maximum(latent, noise, make_task):
    generator = torch.Generator().manual_seed(0)
    weight = torch.tensor([[2.0, -1.0, 0.5, 0.0], [0.0, 0.7, 0.5, 1.0]])[:latent]
    codes, errors = torch.randn(60, latent, generator=generator), torch.randn(60, 4, generator=generator)
    x = codes @ weight + 3 + 0.4 * errors
    task = make_task(x, noise=0.16 if noise == "known" else noise, latent_dim=latent, **LINEAR)
    for _ in ExactMLE(steps=40, trial_steps=10).fit(task):
        pass
    best = highest(x.double().numpy(), latent, 0.16 if noise == "known" else None)
    assert best - 0.005 < likelihood(task.model, x, 1e-5) < best + 1e-4


def test_without_early_stopping_its_training_likelihood_is_the_highest(make_task):
    reached = {}
    for method in (ExactMLE(steps=200, trial_steps=50), PolishedMAPA(steps=200), VAE(steps=200)):
        task = validated_by_itself(make_task("figure8", 40, seed=1000))
        for _ in method.fit(task):
            pass
        reached[type(method)] = likelihood(task.model, task.train)
    assert max(reached, key=reached.get) is ExactMLE


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_start_of_highest_likelihood_wins(place, make_task, monkeypatch):
    task = validated_by_itself(make_task("circle", 80))
    good = copy.deepcopy(task.model)
    list(maximise_likelihood(good, task.train, codebook(500, 1), NullLedger(), 100, 0.0))
    models = [perturbed(good, seed) for seed in range(3)]
    models.insert(place, copy.deepcopy(good))
    ascents = [Ascent(model) for model in models]

    def planted(*_):
        yield from ()
        return ascents

    monkeypatch.setattr(ExactMLE, "_starts", planted)
    for _ in ExactMLE(trial_steps=3, steps=6).fit(task):
        pass
    assert [ascent.steps for ascent in ascents].count(6) == 2
    assert likelihood(task.model, task.train) >= likelihood(good, task.train) - 1e-3
    assert all(torch.equal(a, b) for a, b in zip(task.model.parameters(), models[place].parameters(), strict=True))


def test_what_it_yields_is_the_model_of_the_task_at_the_best_weights_so_far(make_task):
    task = validated_by_itself(make_task("circle", 60))
    looks = []
    for step, fitted in enumerate(ExactMLE(steps=60, trial_steps=20).fit(task)):
        assert fitted.model is task.model
        if step % 20 == 0:
            looks.append(
                (isinstance(fitted.posterior, mixture_likelihood.ModelPosterior), likelihood(fitted.model, task.train))
            )
    climbed = [value for exactly, value in looks if exactly]
    assert len(climbed) >= 4
    assert (np.diff(climbed) > -5e-3).all()


def test_a_maximum_that_overfits_is_not_kept(make_task):
    task = make_task("figure8", 20)
    whole = validated_by_itself(make_task("figure8", 20))
    for each in (task, whole):
        for _ in ExactMLE(steps=200, trial_steps=50).fit(each):
            pass
    assert likelihood(whole.model, task.train) > likelihood(task.model, task.train) + 0.05
    assert likelihood(task.model, task.validation) > likelihood(whole.model, task.validation) + 0.05


def test_codebooks_of_different_sizes_are_accounted_for_apart(make_task):
    class Named(NullLedger):
        def __init__(self):
            self.names = set()

        def run(self, name, work, *args):
            self.names.add(name)
            return work(*args)

    ledger = Named()
    task = make_task("circle", 60, ledger=ledger)
    ascent, sizes = Ascent(copy.deepcopy(task.model)), set()
    for _ in range(2):
        for _ in advanced(ascent, task, ExactMLE(box=0.2, trial_steps=10)):
            sizes.add(len(ascent.grid.low))
    assert len(sizes) == 2
    assert {f"likelihood over {size} codes" for size in sizes} < ledger.names


def test_what_no_quadrature_resolves_is_left_out():
    assert "2 latent" in ExactMLE().skip(3, 5, 100)
    assert "100 coordinates" in ExactMLE().skip(1, exact.MOST_COORDINATES + 1, 100)
    assert ExactMLE().skip(2, exact.MOST_COORDINATES, 100) is None

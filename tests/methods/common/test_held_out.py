"""The likelihood of validation points against quadrature, and what methods look at and how often."""

import dataclasses

import pytest
import torch

import methods
from bench.fit.flop_counter import CountingLedger
from datasets.quadrature import log_marginal
from methods import pyro_svi
from methods.common import amortised
from methods.common.held_out import CODES, POINTS, HeldOut


def exact(task):
    """The mean log-likelihood of validation points, by quadrature."""
    decode = lambda z: task.model.decode(z).double()  # noqa: E731
    found = log_marginal(decode, task.model.variance(), task.validation.double(), task.latent_dim)
    return float(found.value.mean())


@pytest.mark.parametrize(("method", "steps"), [("mapa", 150), ("vae", 300)])
@pytest.mark.parametrize("name", ["circle", "s_curve"])
def test_the_likelihood_is_that_of_quadrature(method, steps, name, make_task):
    """Of a decoder that fits, as of others a few far codes decide."""
    task = make_task(name, 200)
    for _ in methods.load(method)(steps=steps).fit(task):
        pass
    assert HeldOut(task.validation, task.latent_dim).log_likelihood(task.model) == pytest.approx(exact(task), abs=0.02)


@pytest.mark.parametrize("name", ["circle", "s_curve"])
def test_codes_and_noise_enter_for_themselves(name, make_task):
    """The likelihood of an untrained decoder whose noise and first layer are changed is that of quadrature."""
    task = make_task(name, 40)
    task.model.steepen(2.0)
    task.model.set_variance(0.5)
    assert HeldOut(task.validation, task.latent_dim).log_likelihood(task.model) == pytest.approx(exact(task), abs=1e-3)


def test_no_more_than_some_points_and_codes_are_used(make_task):
    task = make_task("circle", POINTS + 100)
    held_out = HeldOut(task.validation, 1)
    assert torch.equal(held_out.x, task.validation[:POINTS].double())
    assert held_out.codes.shape == (CODES, 1)


@pytest.fixture
def looks(monkeypatch):
    """The points and values of all looks, which are at every second step."""
    seen = []

    def noted(self, model, right=HeldOut.log_likelihood):
        seen.append((self.x, right(self, model)))
        return seen[-1][1]

    monkeypatch.setattr(HeldOut, "log_likelihood", noted)
    for module in (amortised, pyro_svi):
        monkeypatch.setattr(module, "VALIDATE_EVERY", 2)
    return seen


METHODS = ["mapa", "vae", "iwae", "iwae-dreg", "iterative", "semi-amortised", "flow"]
METHODS += ["full-covariance", "wake-sleep", "svi", "map-codes", "particles", "langevin", "pyro-vae", "pyro-iwae"]

CHEAP_STEPS = {"svi": 0.05, "map-codes": 0.05}  # without an encoder to train, a look of equal cost is a larger share


@pytest.mark.parametrize("name", METHODS)
def test_every_method_looks_at_validation_points_and_at_no_others(name, make_task, short, looks):
    task = make_task("circle")
    for _ in short(methods.load(name)(), 8).fit(task):
        pass
    assert len(looks) >= 2
    assert len({value for _, value in looks}) > 1
    assert all(torch.equal(x, task.validation.double()) for x, _ in looks)
    assert not torch.equal(task.train, task.validation)


@pytest.mark.parametrize("restarts", [1, 2])
def test_each_seed_of_a_block_is_judged_by_the_values_that_it_has_alone(restarts, make_task, looks):
    method = methods.load("vae")(steps=20, restarts=restarts)

    def values(seeds):
        looks.clear()
        for _ in method.fit_together([make_task("s_curve", seed=seed) for seed in seeds]):
            pass
        return torch.tensor([value for _, value in looks]).view(-1, len(seeds))

    block = values(range(3))
    for seed in range(3):
        assert torch.allclose(block[:, seed], values([seed])[:, 0], rtol=0, atol=1e-4)
    assert (block[:, 0] - block[:, 1]).abs().min() > 1e-3


@pytest.mark.parametrize("name", METHODS[1:-2])
def test_looks_take_little_of_the_work(name, make_task, short, monkeypatch):
    usual, ledger = amortised.VALIDATE_EVERY, CountingLedger()
    task, method = make_task("s_curve", 100, ledger=ledger), short(methods.load(name)(), 6)
    task = dataclasses.replace(task, validation=task.validation.repeat(POINTS // 100, 1))
    monkeypatch.setattr(amortised, "VALIDATE_EVERY", 2)
    ledger.start()
    for _ in method.fit(task):
        pass
    ledger.stop()
    cost = {work.name: work.flops / work.calls for work in ledger.account()}
    step = min(flops for part, flops in cost.items() if part in ("joint step", "encoder step"))
    share = CHEAP_STEPS.get(name, 0.03)
    assert 0 < cost["validation"] < share * (cost["validation"] + usual * step)

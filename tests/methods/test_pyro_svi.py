"""The methods by Pyro: step for step ours on common noise, and without a trace in what Pyro and torch share."""

import dataclasses
from itertools import islice

import pyro
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch.nn.utils import parameters_to_vector

from bench.fit.flop_counter import CountingLedger
from methods import pyro_svi, vae
from methods.common import amortised
from methods.common.held_out import CODES, HeldOut
from methods.common.optimisers import Anytime
from methods.iwae import IWAE
from methods.pyro_svi import PyroIWAE, PyroVAE
from methods.vae import VAE

SHORT = {"steps": 40, "batch_size": 20, "learning_rate": 3e-3}
STEPS = 15


@dataclasses.dataclass(frozen=True)
class ClosedForm(PyroVAE):
    """Pyro's evidence lower bound with the KL in closed form."""

    def fit(self, task):
        yield from pyro_svi.train(task, TraceMeanField_ELBO(max_plate_nesting=1), *SHORT.values())


def weights(fitted):
    parameters = [*fitted.model.parameters(), *fitted.posterior.network.parameters()]
    return parameters_to_vector(parameters).detach().clone()


def path(method, task, steps=STEPS):
    """All parameters after each of some steps, (steps, P)."""
    return torch.stack([weights(fitted) for fitted in islice(method.fit(task), steps)])


FIXED = {"schedule": "anytime", "steepness": 1.0, "restarts": 1}


@pytest.mark.parametrize(("ours", "theirs"), [(VAE, PyroVAE), (IWAE, PyroIWAE)])
def test_hyperparameters_are_those_of_ours_but_for_some_that_are_fixed(ours, theirs):
    assert dataclasses.asdict(ours()) == {**dataclasses.asdict(theirs()), **FIXED}
    assert not theirs.search
    for name in dataclasses.asdict(theirs()):
        with pytest.raises(ValueError, match=f"^{name} must be positive, got 0$"):
            theirs(**{name: 0})


PAIRS = {
    "elbo": (VAE(**SHORT), ClosedForm(**SHORT)),
    "one sample": (IWAE(samples=1, **SHORT), PyroIWAE(samples=1, **SHORT)),
    "drawn KL": (IWAE(samples=1, **SHORT), PyroVAE(**SHORT)),
    "importance weighted": (IWAE(samples=4, **SHORT), PyroIWAE(samples=4, **SHORT)),
}


@pytest.mark.parametrize("noise", ["known", "learned"])
@pytest.mark.parametrize("name", ["circle", "s_curve"])
@pytest.mark.parametrize("pair", PAIRS)
def test_each_step_is_ours(pair, name, noise, make_task):
    """At a seed both see the same batches and noise, so that every parameter goes the same way, up to rounding.

    What is compared are means of iterates, by our optimiser and by the package `schedulefree`. Adam moves a parameter
    by about the learning rate a step: by a thousandth of that they may differ.
    """
    ours, theirs = (path(method, make_task(name, noise=noise)) for method in PAIRS[pair])
    assert (ours[-1] - ours[0]).abs().max() > 5 * SHORT["learning_rate"]
    assert (ours - theirs).abs().median() < 1e-3 * SHORT["learning_rate"]


def apart(make_task, **other):
    """The median difference of two paths, of which the second has another hyperparameter."""
    ours, theirs = PAIRS["importance weighted"]
    paths = [path(method, make_task("circle")) for method in (ours, dataclasses.replace(theirs, **other))]
    return (paths[0] - paths[1]).abs().median()


@pytest.mark.parametrize(
    "other", [{"samples": 3}, {"learning_rate": 2.9e-3}, {"batch_size": 19}], ids=lambda other: [*other]
)
def test_another_hyperparameter_is_another_path(other, make_task):
    assert apart(make_task, **other) > 1e-3 * SHORT["learning_rate"]


def test_the_number_of_steps_to_come_leaves_the_path_as_it_is(make_task):
    assert apart(make_task, steps=STEPS) < 1e-3 * SHORT["learning_rate"]


@pytest.mark.parametrize("setting", [{"beta": 0.9}, {"power": 1}], ids=lambda setting: [*setting])
def test_another_optimiser_is_another_path(setting, make_task, monkeypatch):
    """Of theirs, whose settings are those of ours."""
    expected = path(PAIRS["elbo"][0], make_task("circle"))
    for name, value in setting.items():
        monkeypatch.setattr(Anytime, name, value)
    found = path(PAIRS["elbo"][1], make_task("circle"))
    assert (found - expected).abs().median() > 1e-3 * SHORT["learning_rate"]


@pytest.mark.parametrize("latent_dim", [1, 3], ids=["likelihood", "bound"])
@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair != "drawn KL"])  # whose looks are at other bounds
def test_both_follow_the_same_rule_of_what_is_shown_and_no_generator_is_moved_by_it(
    pair, latent_dim, make_task, monkeypatch
):
    """With a look at every second step, which finds the present state worse each time."""
    seen = []

    def likelihood(self, model, right=HeldOut.log_likelihood):
        seen.append(right(self, model))
        return -float(len(seen))

    def compared(best, found):
        seen.append(float(found.mean()))
        return torch.tensor([len(seen) == 1]), torch.tensor([len(seen) > 1])

    def begin():
        seen.clear()
        return make_task("manifold", latent_dim=latent_dim)

    states, looks, paths = [streams(method, begin()) for method in PAIRS[pair]], [], []
    monkeypatch.setattr(HeldOut, "log_likelihood", likelihood)
    for module in (amortised, pyro_svi):
        monkeypatch.setattr(module, "VALIDATE_EVERY", 2)
        monkeypatch.setattr(module, "compared", compared)
    for method in PAIRS[pair]:
        states.append(streams(method, begin()))
        looks.append([*seen])
        paths.append(path(method, begin()))
    ours, theirs = looks
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert len(ours) == STEPS // 2
    assert len(set(ours)) > 1
    for others in states[1:]:
        assert all(torch.equal(a, b) for a, b in zip(states[0], others, strict=True))
    assert (paths[0] - paths[1]).abs().median() < 1e-3 * SHORT["learning_rate"]
    for each in paths:  # the state of the first look is shown from the second look on
        assert torch.equal(each[1], each[3])
        assert torch.equal(each[1], each[-1])
        assert not torch.equal(each[0], each[1])
        assert not torch.equal(each[1], each[2])


def streams(method, task):
    """The state of a task's generator after each of some steps."""
    return [task.generator.get_state() for _ in islice(method.fit(task), STEPS)]


def test_a_kl_of_three_tenths_too_much_is_another_path(make_task, monkeypatch):
    def elbo(model, posterior, x, noise, right=vae.elbo):
        mean, log_scale = posterior.moments(x)
        kl = 0.5 * (mean**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum(-1)
        return right(model, posterior, x, noise) - 0.3 * kl

    ours, theirs = PAIRS["elbo"]
    expected = path(theirs, make_task("circle"))
    monkeypatch.setattr(vae, "elbo", elbo)
    assert (path(ours, make_task("circle")) - expected).abs().median() > 1e-3 * SHORT["learning_rate"]


METHODS = (PyroVAE(**SHORT), PyroIWAE(samples=4, **SHORT))


def test_fits_in_turns_are_those_one_after_the_other(make_task):
    alone = [path(method, make_task("circle", noise="learned")) for method in METHODS]
    fits = [method.fit(make_task("circle", noise="learned")) for method in METHODS]
    turns = [[weights(next(fit)) for fit in fits] for _ in range(STEPS)]
    for found, expected in zip(zip(*turns, strict=True), alone, strict=True):
        assert torch.equal(torch.stack(found), expected)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_global_parameters_and_generator_are_as_they_were_between_steps(method, make_task, clean_pyro):
    outside = pyro.param("decoder$$$0.weight", torch.zeros(2))
    before = torch.get_rng_state()
    for _ in islice(method.fit(make_task("circle", noise="learned")), 3):
        assert [*pyro.get_param_store().keys()] == ["decoder$$$0.weight"]
        assert pyro.param("decoder$$$0.weight") is outside
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(outside, torch.zeros(2))


def test_they_are_put_back_after_a_step_that_fails(make_task, clean_pyro, monkeypatch):
    def broken(*args):
        pyro.sample("z", pyro.distributions.Normal(pyro.param("inner", torch.zeros(1)), 1.0))
        raise RuntimeError("broken")

    monkeypatch.setattr(pyro_svi, "guide", broken)
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken"):
        next(PyroVAE(**SHORT).fit(make_task("circle")))
    assert torch.equal(torch.get_rng_state(), before)
    assert not [*pyro.get_param_store().keys()]


def counted(method, make_task, ledger, steps):
    task = make_task("circle", ledger=ledger)
    ledger.watch(decoder=task.model.network)
    ledger.start()
    for _ in islice(method.fit(task), steps):
        pass
    ledger.stop()
    return ledger


class Thorough(CountingLedger):
    """Counts every operator of every step."""

    def run(self, name, work, *args):
        return work(*args)


WHOLE = {"steps": 300, "batch_size": 60}
EVERY = 20
LOOK = EVERY + 1  # steps with one look at validation data


@pytest.mark.parametrize(
    ("ours", "theirs"), [(VAE(**WHOLE), PyroVAE(**WHOLE)), (IWAE(samples=4, **WHOLE), PyroIWAE(samples=4, **WHOLE))]
)
def test_work_is_counted_in_full_and_is_that_of_ours(ours, theirs, make_task, monkeypatch):
    """They differ by how draws, KL, densities and means of iterates are computed, which networks outweigh by far."""
    for module in (amortised, pyro_svi):
        monkeypatch.setattr(module, "VALIDATE_EVERY", EVERY)
    found = counted(theirs, make_task, CountingLedger(), LOOK)
    assert found.flops == counted(theirs, make_task, Thorough(), LOOK).flops
    assert not found.unlisted
    expected = counted(ours, make_task, CountingLedger(), LOOK)
    assert found.passes == expected.passes
    assert expected.passes == {"encoder": 60 * LOOK, "decoder": 60 * LOOK * ours.draws + CODES}
    assert found.flops == pytest.approx(expected.flops, rel=0.02)

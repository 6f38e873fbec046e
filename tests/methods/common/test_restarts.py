"""Restarts of the amortised methods: which start goes on, from which state, what is shown meanwhile, what it costs."""

import dataclasses
import itertools
import math
from typing import ClassVar

import pytest
import torch

import methods
from bench.fit.flop_counter import CountingLedger
from methods.common import amortised
from methods.common.amortised import TRIAL, AmortisedMethod, Batches, Trainer
from methods.common.held_out import HeldOut
from methods.common.replicas import row
from methods.vae import VAE

DATA, SEEDS, STARTS, STEPS = 20, 5, 3, 60
TRIED = round(TRIAL * STEPS)
BRIEF = {"steps": STEPS, "batch_size": DATA}
METHODS = ["vae", "iterative"]


def load(name, **settings):
    return methods.load(name)(**BRIEF, **settings)


@dataclasses.dataclass(frozen=True)
class Erratic(VAE):
    """What a step trains depends on all bounds before it."""

    phased: ClassVar[bool] = True

    def phases(self, fitted, task):
        bounds = 0.0
        while True:
            bounds += yield ("encoder", "decoder", "joint")[int(bounds) % 3]


CERTAIN = {
    "anytime": VAE(**BRIEF),
    "cosine": VAE(**BRIEF, schedule="cosine", steepness=4.0),
    "phases": Erratic(**BRIEF),
}


def weights(fitted):
    return row(fitted.model), row(fitted.posterior)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def path(method, task):
    """The weights that are shown after each step."""
    return [weights(fitted) for fitted in method.fit(task)]


@pytest.fixture
def certain(monkeypatch):
    """No noise: with all data in each batch, a fit depends on its initial weights alone, but for rounding."""
    monkeypatch.setattr(Batches, "_draw", lambda _, task, x: x.new_zeros(1, len(x), task.latent_dim))


@pytest.fixture
def begin(make_task):
    """A function that makes the task of a seed in double precision."""

    def task(seed, **options):
        made = make_task("circle", DATA, seed=seed, hidden=(6,), **options)
        x = [each.double() for each in (made.train, made.validation)]
        return dataclasses.replace(made, train=x[0], validation=x[1], model=made.model.double())

    torch.set_default_dtype(torch.float64)
    yield task
    torch.set_default_dtype(torch.float32)


def alone_from(method, task, initial):
    """What is learned from given initial weights by all steps: the likelihood after a trial, and the final weights.

    Args:
        method: A method without restarts.
        task: The fitting problem.
        initial: The weights of decoder and encoder, (P,).
    """
    trainer = Trainer(method, [task])
    trainer.replicas.weights[0] = trainer.replicas.evaluated[0] = initial
    trainer._begin()
    for step, (fitted,) in enumerate(trainer.run(), 1):
        if step == TRIED:
            reached = HeldOut(task.validation, task.latent_dim).log_likelihood(fitted.model)
    return reached, torch.cat(weights(fitted))


@pytest.mark.parametrize("method", CERTAIN.values(), ids=CERTAIN)
@pytest.mark.usefixtures("certain")
def test_the_start_that_is_ahead_after_its_trial_ends_as_if_it_were_the_only_one(method, begin, monkeypatch):
    """All seeds of a block choose, each for itself, and go on with the moments of optimisers and the phases."""
    drawn = []

    def noted(self, task, model, right=Trainer._redrawn):
        drawn.append(right(self, task, model))
        return drawn[-1]

    monkeypatch.setattr(Trainer, "_redrawn", noted)
    trainer = Trainer(dataclasses.replace(method, restarts=STARTS), [begin(seed) for seed in range(SEEDS)])
    drawn += trainer.replicas.weights.clone()
    *_, last = trainer.run()
    chosen = []
    for seed, fitted in enumerate(last):
        starts = drawn[seed::SEEDS]
        reached, ends = zip(*(alone_from(method, begin(seed), start) for start in starts), strict=True)
        chosen.append(reached.index(max(reached)))
        apart = [float((torch.cat(weights(fitted)) - end).abs().max()) for end in ends]
        assert len(apart) == STARTS
        assert apart.pop(chosen[-1]) < 1e-7
        assert min(apart) > 0.1
    assert len(set(chosen)) > 1


@pytest.mark.parametrize("name", METHODS)
def test_the_trial_of_the_first_start_is_how_a_fit_without_restarts_begins(name, make_task):
    plain, restarted = (path(load(name, restarts=count), make_task("circle", DATA)) for count in (1, STARTS))
    assert len(plain) == STEPS
    assert len(restarted) == STEPS + (STARTS - 1) * TRIED
    assert all(map(same, plain[:TRIED], restarted))
    assert not any(map(same, plain[TRIED:], restarted[TRIED:]))


def test_the_best_start_so_far_is_shown_while_others_are_tried(make_task):
    starts = 9
    trainer = Trainer(load("vae", restarts=starts), [make_task("circle", DATA)])
    shown, tried = [], []
    for step, (fitted,) in enumerate(trainer.run(), 1):
        shown.append(torch.cat(weights(fitted)))
        if step % TRIED == 0 and step <= starts * TRIED:
            tried.append((float(trainer.best_scores), trainer.best[0].clone()))
    best = [max(tried[:k], key=lambda each: each[0])[1] for k in range(1, starts + 1)]
    for k in range(1, starts):
        for values in shown[k * TRIED : (k + 1) * TRIED]:
            assert torch.equal(values, best[k - 1])
    assert len({float(values.sum()) for values in best}) > 1
    assert not torch.equal(best[-1], shown[starts * TRIED])


def test_what_is_shown_after_the_trials_follows_the_looks_at_the_start_that_goes_on(make_task, monkeypatch):
    """Looks are at every second step. The first start is best at its first look, and the second is never as good."""
    values = itertools.chain([1.0, *[0.0] * 5], itertools.count(2.0))
    monkeypatch.setattr(amortised, "VALIDATE_EVERY", 2)
    monkeypatch.setattr(HeldOut, "log_likelihood", lambda *_: next(values))
    shown = path(load("vae", restarts=2), make_task("circle", DATA))
    is_best = [same(shown[1], each) for each in shown]
    assert is_best == [False, True, False, *[True] * (2 * TRIED - 2), *[False] * (STEPS - TRIED - 1)]


def test_a_start_that_diverges_is_not_chosen(make_task):
    ends = []
    for restarts in (1, 2):
        task = make_task("circle", DATA)
        with torch.no_grad():
            task.model.network[0].weight.fill_(math.nan)
        *_, (decoder, _) = path(load("vae", restarts=restarts), task)
        ends.append(bool(decoder.isfinite().all()))
    assert ends == [False, True]


@pytest.mark.parametrize("noise", ["known", "learned"])
def test_a_restart_has_initial_weights_of_the_generator_and_the_untrained_noise(make_task, noise):
    """All weights are other ones, within 1/sqrt(fan-in), or so many times as large in the first layer."""
    steepness = 4.0

    def drawn(seed=0):
        task = make_task("s_curve", DATA, noise=noise, seed=seed)
        trainer = Trainer(load("vae", restarts=2, steepness=steepness), [task])
        first, model, state = trainer.replicas.weights[0].clone(), trainer.untrained[0], task.generator.get_state()
        found = trainer._redrawn(task, model)
        assert not torch.equal(state, task.generator.get_state())
        return task, model, first, found

    task, model, first, found = drawn()
    assert model is not task.model
    assert model.variance() == task.model.variance()
    assert torch.equal(found, drawn()[-1])
    assert not torch.equal(found, drawn(1)[-1])
    assert int((found == first).sum()) == (noise == "learned")
    for layer, factor in zip(model.network[::2], (steepness, 1, 1), strict=True):
        largest = layer.weight.abs().max() * math.sqrt(layer.in_features) / factor
        assert 0.9 < largest <= 1 + 1e-6


# Cost


class Thorough(CountingLedger):
    """Counts every operator each time."""

    def run(self, name, work, *args):
        return work(*args)


def counted(make_task, method, ledger):
    """The ledger of a whole fit."""
    task = make_task("circle", DATA, ledger=ledger)
    task.ledger.watch(decoder=task.model.network)
    ledger.start()
    for _ in method.fit(task):
        pass
    ledger.stop()
    return ledger


@pytest.mark.parametrize("name", ["vae", "flow"])
def test_all_trials_are_counted(name, make_task):
    plain, restarted = (counted(make_task, load(name, restarts=count), CountingLedger()) for count in (1, STARTS))
    thorough = counted(make_task, load(name, restarts=STARTS), Thorough())
    assert restarted.flops == thorough.flops
    assert restarted.passes == thorough.passes
    calls = {work.name: work.calls for work in restarted.account()}
    assert calls["joint step"] == STEPS + (STARTS - 1) * TRIED
    assert calls["validation"] == STARTS
    assert calls["initial weights of a restart"] == STARTS - 1
    assert calls.keys() - {work.name for work in plain.account()} == {
        "validation",
        "initial weights of a restart",
        "choice of a start",
    }
    step, shared = (
        next(w.flops / w.calls for w in each.account() if w.name == "joint step") for each in (restarted, plain)
    )
    assert step == shared


def test_restarts_are_positive():
    with pytest.raises(ValueError, match=r"^restarts must be positive, got 0$"):
        load("vae", restarts=0)


STOCHASTIC = [name for name in methods.BUILTIN if hasattr(methods.load(name), "restarts")]


def test_tuning_offers_restarts_to_every_amortised_method():
    assert [name for name in methods.BUILTIN if issubclass(methods.load(name), AmortisedMethod)] == STOCHASTIC
    for name in STOCHASTIC:
        assert methods.load(name)().restarts == 1
        assert methods.load(name).search["restarts"].values == (1, 2, 4)

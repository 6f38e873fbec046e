"""The one trainer: several seeds as one program against each alone, its accounts, its streams and what it shows."""

import dataclasses
import functools
import itertools
import math
from contextlib import contextmanager
from itertools import islice
from typing import ClassVar

import pytest
import torch

import methods
from bench.fit.flop_counter import CountingLedger
from methods.common import amortised
from methods.common.amortised import AmortisedMethod, Batches, Stepper, Trainer
from methods.common.held_out import POINTS, HeldOut
from methods.common.training import Objective, elbo
from methods.contract.method import Fitted, Task
from methods.iwae import IWAE
from methods.vae import VAE

DATA, BLOCK, COMPARED = 100, 10, 7
# Rounding grows in training, in the importance weighted bound and in second derivatives soonest: in 30 steps a million
# times. Therefore most fits are in double precision, which shows that nothing but rounding differs.
LONG, BRIEF = {"steps": 150, "batch_size": 50}, {"steps": 30, "batch_size": 50}
METHODS = {
    "vae": LONG,
    "iterative": {**LONG, "window": 3, "most_inner": 9, "restarts": 2},
    "iwae": BRIEF,
    "iwae-dreg": {**BRIEF, "steepness": 4.0, "restarts": 4},
    "semi-amortised": BRIEF,
}


@pytest.fixture(autouse=True)
def short_looks(monkeypatch):
    """A look at every hundredth step, so that there are several in short fits."""
    monkeypatch.setattr(amortised, "VALIDATE_EVERY", 100)


def load(name, **settings):
    return methods.load(name)(**{**METHODS[name], **settings})


@dataclasses.dataclass(frozen=True)
class Fit:
    """What one seed was, learned and cost."""

    task: Task
    fitted: Fitted
    costs: list[float]

    @property
    def ledger(self):
        return self.task.ledger


def watched(make_task, *args, **options):
    """A task whose ledger counts."""
    task = make_task(*args, ledger=CountingLedger(), **options)
    task.ledger.watch(decoder=task.model.network)
    return task


def counted(fit, tasks):
    """Fit to the end as the harness does, with the ledgers going only within the method."""
    costs, last = [[] for _ in tasks], None
    while True:
        for task in tasks:
            task.ledger.start(every=len(tasks) == 1)
        fitted = next(fit, None)
        for task in tasks:
            task.ledger.stop()
        if fitted is None:
            return [Fit(*each) for each in zip(tasks, last, costs, strict=True)]
        last = fitted
        for each, task in zip(costs, tasks, strict=True):
            each.append(task.ledger.flops)


@contextmanager
def precision(dtype):
    """Networks and noise that are made within are of this type."""
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def fits(make_task):
    """A function that gives the fit of a seed, in a block of ten and alone; each is run once for all tests."""

    def begun(data, noise, seed, dtype):
        task = watched(make_task, data, DATA, noise=noise, seed=seed, hidden=(16, 16))
        x = [each.to(dtype) for each in (task.train, task.validation)]
        return dataclasses.replace(task, train=x[0], validation=x[1], model=task.model.to(dtype))

    @functools.cache
    def run(name, data, noise, dtype=torch.float64):
        method = load(name)
        with precision(dtype):
            stack = [begun(data, noise, seed, dtype) for seed in range(BLOCK)]
            together = counted(iter(method.fit_together(stack)), stack)[COMPARED]
            task = begun(data, noise, COMPARED, dtype)
            (alone,) = counted(((fitted,) for fitted in method.fit(task)), [task])
        return together, alone

    return run


CASES = pytest.mark.parametrize(
    ("name", "data", "noise"),
    [
        *itertools.product(("vae", "iterative"), ("circle", "s_curve"), ("known", "learned")),
        *itertools.product(("iwae", "semi-amortised"), ("circle", "s_curve"), ("known",)),
        ("iwae-dreg", "circle", "learned"),
    ],
)


def bound(name, fit, shift=0.0):
    """The mean bound on validation data at fixed noise, in nats, with the first bias of the decoder shifted."""
    method, x, generator = load(name), fit.task.validation, torch.Generator().manual_seed(3)
    noise = torch.randn(method.draws, len(x), fit.task.latent_dim, generator=generator).to(x)
    bias = fit.task.model.network[0].bias
    with torch.no_grad():
        bias += shift
        found = method.objective(fit.fitted.model, fit.fitted.posterior, x, noise, method.steps).bound
        bias -= shift
    return float(found.mean())


def agree(name, together, alone, nats, units):
    """Whether bounds, decoded codes and noise are equal."""
    codes = torch.linspace(-2, 2, 2 * 30).view(30, 2)[:, : alone.task.latent_dim]
    with torch.no_grad():
        decoded, expected = (fit.fitted.model.decode(codes) for fit in (together, alone))
    return (
        abs(bound(name, together) - bound(name, alone)) < nats
        and bool((decoded - expected).abs().max() < units)
        and math.isclose(together.fitted.model.variance(), alone.fitted.model.variance(), rel_tol=units)
    )


@CASES
def test_a_seed_has_the_values_that_it_has_alone(fits, name, data, noise):
    together, alone = fits(name, data, noise)
    assert agree(name, together, alone, nats=1e-6, units=1e-6)
    assert abs(bound(name, together, shift=0.01) - bound(name, alone)) > 1e-4


@pytest.mark.parametrize(("data", "noise"), [("circle", "known"), ("s_curve", "learned")])
def test_in_single_precision_rounding_is_all_that_differs(fits, data, noise):
    assert agree("vae", *fits("vae", data, noise, torch.float32), nats=1e-4, units=1e-4)


@CASES
def test_a_seed_costs_what_it_costs_alone(fits, name, data, noise):
    together, alone = fits(name, data, noise)
    assert together.costs == alone.costs
    assert together.ledger.passes == alone.ledger.passes
    assert together.ledger.account() == alone.ledger.account()
    assert not together.ledger.unlisted
    assert min(alone.ledger.passes.values()) > 0
    assert sum(work.flops for work in together.ledger.account()) == together.costs[-1]


def test_the_model_of_the_task_is_what_is_shown(fits):
    for fit in fits("vae", "circle", "known"):
        assert fit.fitted.model is fit.task.model


def state(fitted):
    return [*fitted.model.state_dict().values(), *fitted.posterior.network.state_dict().values()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def together(method, tasks):
    *_, last = method.fit_together(tasks)
    return [state(each) for each in last]


@pytest.mark.parametrize("name", ["vae", "iterative", "iwae"])
def test_a_seed_does_not_see_the_others_of_its_block(make_task, name):
    method = load(name, steps=120)
    blocks = [(0, 1, 2, 3), (0, 14, 12, 3)]
    first, second = (together(method, [make_task("circle", DATA, seed=seed) for seed in seeds]) for seeds in blocks)
    assert same(first[0], second[0])
    assert same(first[3], second[3])
    assert not same(first[0], first[3])
    assert not same(first[1], second[1])


def test_counting_changes_no_value(make_task):
    method, seeds = load("iterative", steps=120), range(3)
    tasks = [watched(make_task, "circle", DATA, seed=seed) for seed in seeds]
    expected = together(method, [make_task("circle", DATA, seed=seed) for seed in seeds])
    for fit, plain in zip(counted(iter(method.fit_together(tasks)), tasks), expected, strict=True):
        assert same(state(fit.fitted), plain)


def test_a_seed_that_has_ended_costs_nothing_more(make_task):
    """The harness starts its ledger no more, while the others go on."""
    ended, other = (watched(make_task, "circle", DATA, seed=seed) for seed in range(2))
    fit, known = iter(VAE(**LONG).fit_together([ended, other])), None
    for step in range(120):
        for task in (ended, other) if step < 20 else (other,):
            task.ledger.start(every=False)
        next(fit)
        for task in (ended, other):
            task.ledger.stop()
        known = (ended.ledger.account(), dict(ended.ledger.passes)) if step == 19 else known
    assert (ended.ledger.account(), ended.ledger.passes) == known
    assert other.ledger.flops > 5 * ended.ledger.flops


def test_a_module_that_states_no_axes_cannot_be_fitted_together(make_task):
    flow = methods.load("flow")
    assert not flow.stacks
    tasks = [make_task("circle", seed=seed) for seed in range(2)]
    with pytest.raises(TypeError, match="cannot be part of a program of several replicas"):
        next(iter(flow().fit_together(tasks)))


@pytest.mark.parametrize("name", [name for name in methods.BUILTIN if methods.load(name).stacks])
def test_methods_that_say_so_can_be_fitted_together(name, make_task, short):
    method = short(methods.load(name)(), 3)
    assert len([*method.fit_together([make_task("circle", seed=seed) for seed in range(2)])]) == 3


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match=r"^schedule must be anytime or cosine, got 'linear'$"):
        VAE(schedule="linear")


# The first layer


def test_a_steeper_first_layer_is_where_training_starts(make_task):
    """The same fit as from a model that was made steeper before, and another one than by default."""
    made, steep, plain = (make_task("circle", DATA) for _ in range(3))
    with torch.no_grad():
        made.model.network[0].weight.mul_(4)
        made.model.network[0].bias.mul_(4)
    for _ in zip(VAE(steps=5).fit(made), VAE(steps=5, steepness=4.0).fit(steep), VAE(steps=5).fit(plain), strict=True):
        assert same(made.model.state_dict().values(), steep.model.state_dict().values())
        assert not same(made.model.state_dict().values(), plain.model.state_dict().values())


def test_no_work_is_done_for_a_first_layer_as_it_is(make_task):
    accounts = []
    for steepness in (1.0, 4.0):
        task = watched(make_task, "circle", DATA)
        (fit,) = counted(((fitted,) for fitted in VAE(steps=3, steepness=steepness).fit(task)), [task])
        accounts.append({work.name: work.flops for work in fit.ledger.account()})
    plain, steep = accounts
    assert steep == {**plain, "steeper first layer": 2 * 64}


# Batches and noise


@pytest.mark.parametrize(("size", "draws"), [(20, 1), (33, 3), (500, 2)])
def test_each_replica_has_batches_and_noise_of_its_own_generator(make_task, size, draws):
    def taken(seeds):
        tasks = [make_task("s_curve", seed=seed) for seed in seeds]
        return [*islice(Batches(tasks, size, draws), 7)], [task.generator.get_state() for task in tasks]

    stacked, states = taken(range(3))
    tasks_of = [make_task("s_curve", seed=seed) for seed in range(3)]
    for r in range(3):
        alone, (end,) = taken([r])
        assert torch.equal(states[r], end)
        for (x, noise, index), (own_x, own_noise, own_index) in zip(stacked, alone, strict=True):
            assert torch.equal(index[r], own_index)
            assert torch.equal(tasks_of[r].train[own_index[:, 0]], own_x)
            assert torch.equal(x[r], own_x)
            assert torch.equal(noise[:, r], own_noise)
            assert own_noise.shape == (draws, len(own_x), 2)
    for _, noise, _ in stacked:
        assert not any(torch.equal(noise[:, a], noise[:, b]) for a, b in itertools.combinations(range(3), 2))
    noises = torch.stack([noise for _, noise, _ in stacked]).flatten()
    assert len(noises.unique()) > 0.99 * len(noises)


@pytest.mark.parametrize(("n", "size"), [(60, 20), (61, 20), (7, 20)])
def test_a_pass_takes_each_datum_at_most_once_in_a_new_order(make_task, n, size):
    task = make_task("circle", n)
    stream, per_pass, orders = iter(Batches([task], size, 1)), max(n // size, 1), []
    for _ in range(3):
        rows = torch.cat([next(stream)[0] for _ in range(per_pass)])
        place = (rows[:, None] == task.train).all(-1)
        assert place.any(1).all()
        orders.append(place.int().argmax(1).tolist())
        assert len(set(orders[-1])) == len(orders[-1]) == per_pass * min(size, n)
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("count", [1, 2])
def test_validation_moves_no_generator_and_takes_the_first_points(make_task, count, monkeypatch):
    many = torch.randn(POINTS + 20, 2, generator=torch.Generator().manual_seed(0))
    tasks = [make_task(many + seed, latent_dim=1, noise=0.1, seed=seed) for seed in range(count)]
    before = [task.generator.get_state() for task in tasks]
    x, noise, _ = Batches(tasks, 20, 3).validation()
    assert same(before, [task.generator.get_state() for task in tasks])
    assert x.shape[-2] == noise.shape[-2] == POINTS
    for r, task in enumerate(tasks):
        assert torch.equal(x if count == 1 else x[r], task.validation[:POINTS])

    def streams():
        tasks = [make_task(many[:60] + seed, latent_dim=3, noise=0.1, seed=seed) for seed in range(count)]
        fit = VAE(steps=8).fit_together(tasks)
        return [torch.cat([task.generator.get_state() for task in tasks]) for _ in fit]

    plain = streams()
    monkeypatch.setattr(amortised, "VALIDATE_EVERY", 2)
    assert same(plain, streams())


# What is shown


@dataclasses.dataclass(frozen=True)
class Planted(AmortisedMethod):
    """Raises the logarithm of the noise at each step, whatever the bound, which is planted.

    The bound of x = (e, s) is b (1 + s e), where b depends on the noise. Of data e of mean 0 and variance 1, the
    difference of two states is the difference of b, and its standard error s / sqrt(n) of that. Noise is added that
    leaves differences as they are if it is the same at each look.
    """

    turn: float = math.inf

    steps: int = 320
    batch_size: int = 10
    learning_rate: float = 0.01

    def objective(self, model, posterior, x, noise, step):
        log_noise = model.log_noise
        raised = log_noise - math.log(0.1) - 2 * model.units.scale.log().view_as(log_noise)
        b = raised.detach() if self.turn < 0 else -raised.detach()
        if 0 < self.turn < math.inf:
            b = (raised.detach() - self.turn).square()
        value = b * (1 + x[..., 1] * x[..., 0]) + 30 * noise[0, ..., 0]
        return Objective(value, log_noise + 0 * elbo(model, posterior, x, noise[0]))


PLANTED = 64


def planted(errors):
    """Data whose planted differences are this many standard errors, (64, 2)."""
    e = torch.randn(PLANTED, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    e = (e - e.mean()) / e.std()
    return torch.stack([e, torch.full_like(e, math.sqrt(PLANTED) / errors)], 1).float()


def shown(make_task, method, *errors):
    """The log noise of each task after each step: that shown, and the present one; both (steps, tasks)."""
    trainer = Trainer(
        method, [make_task(planted(each), noise="learned", latent_dim=3, seed=3, hidden=(4,)) for each in errors]
    )
    return followed(trainer)


def followed(trainer):
    """What `shown` returns, of a trainer."""
    found, present = [], []
    for fitted in trainer.run():
        assert all(each.model is task.model for each, task in zip(fitted, trainer.tasks, strict=True))
        found.append([math.log(each.model.variance()) for each in fitted])
        present.append(trainer.replicas.mean.model.log_noise.detach().double().flatten().tolist())
    return torch.tensor(found), torch.tensor(present)


def close(first, second):
    return torch.allclose(first, second, rtol=0, atol=1e-6)


@pytest.mark.parametrize("errors", [2.1, 4.0])
def test_a_state_that_is_significantly_worse_gives_way_to_the_best(make_task, errors):
    found, present = shown(make_task, Planted(), errors)
    assert (present.diff(dim=0) > 0).all()
    assert close(found[:199], present[:199])
    assert close(found[199:], present[99])


@pytest.mark.parametrize("errors", [1.9, 0.5])
def test_a_state_that_is_worse_by_chance_is_shown(make_task, errors):
    assert close(*shown(make_task, Planted(), errors))


def test_the_present_state_is_shown_where_it_is_better(make_task):
    assert close(*shown(make_task, Planted(turn=-1.0), 4.0))


def test_the_present_state_is_shown_again_when_it_is_no_longer_worse(make_task):
    """The bound falls and rises again, to be the best so far after 300 steps."""
    _, present = shown(make_task, Planted(), 4.0)
    raised = present - present[0]
    method = Planted(turn=float(raised[194]))
    found, present = shown(make_task, method, 4.0)
    assert close(found[:199], present[:199])
    assert close(found[199:299], present[99])
    assert close(found[299:], present[299:])


def test_each_replica_is_judged_by_itself(make_task):
    found, present = shown(make_task, Planted(), 2.1, 1.9, 4.0)
    assert close(found[:, 1], present[:, 1])
    for r in (0, 2):
        assert close(found[:199, r], present[:199, r])
        assert close(found[199:, r], present[99, r])


def test_the_best_state_is_that_of_all_networks(make_task):
    """Decoder and encoder are shown as they were at the best look, not only the noise."""
    trainer = Trainer(Planted(), [make_task(planted(4.0), noise="learned", latent_dim=3)])
    states = [[each.clone() for each in state(fitted)] for (fitted,) in trainer.run()]
    assert same(states[99], states[-1])
    assert not same(states[99], states[150])


def test_a_state_of_a_good_bound_and_a_bad_likelihood_is_not_kept(make_task):
    """The noise and the bound rise at each step. At the second seed of the block it is too large from the first on."""
    tasks = [make_task("circle", noise="learned", seed=seed) for seed in range(2)]
    for task, start in zip(tasks, (0.01, 2.0), strict=True):
        task.model.set_variance(start * float(task.model.units.scale) ** 2)
    found, present = followed(Trainer(Planted(turn=-1.0), tasks))
    assert (present.diff(dim=0) > 0).all()
    assert close(found[:, 0], present[:, 0])
    assert close(found[:199, 1], present[:199, 1])
    assert close(found[199:, 1], present[99, 1])


def test_likelihoods_are_of_the_mean_of_the_iterates(make_task):
    """Where states are evaluated, not where gradients are taken."""
    trainer = Trainer(VAE(steps=100), [make_task("circle", seed=seed) for seed in range(2)])
    *_, last = trainer.run()
    for seed, (task, fitted) in enumerate(zip(trainer.tasks, last, strict=True)):
        held_out = HeldOut(task.validation, 1)
        assert float(trainer.best_scores[seed]) == held_out.log_likelihood(fitted.model)
        assert float(trainer.best_scores[seed]) != pytest.approx(held_out.log_likelihood(trainer.live[seed].model))


def test_bounds_are_of_the_mean_of_the_iterates(make_task, monkeypatch):
    """Above two latent dimensions, where bounds are compared."""
    seen = []

    def look(self, batch, best, right=Stepper.look):
        found = right(self, batch, best)
        seen.append(found[0][0])
        return found

    monkeypatch.setattr(Stepper, "look", look)
    trainer = Trainer(VAE(steps=100), [make_task(planted(1.0), latent_dim=3, noise=0.1)])
    *_, (fitted,) = trainer.run()
    x, noise, _ = trainer.validation
    with torch.no_grad():
        expected, live = (
            elbo(networks.model, networks.encoder, x, noise[0]) for networks in (trainer.replicas.mean, trainer.live[0])
        )
        assert torch.equal(elbo(fitted.model, fitted.posterior, x, noise[0]), expected)
    assert torch.equal(seen[-1], expected)
    assert not torch.allclose(expected, live)


class Counting(IWAE):
    """Notes the step that its objective is told."""

    told: ClassVar[list] = []

    def objective(self, model, posterior, x, noise, step):
        self.told.append((step, tuple(noise.shape)))
        return super().objective(model, posterior, x, noise, step)


def test_an_objective_is_told_the_steps_that_are_taken_and_given_its_draws(make_task):
    Counting.told.clear()
    for _ in Counting(samples=3, steps=5, batch_size=20).fit(make_task("circle")):
        pass
    assert Counting.told == [(step, (3, 20, 1)) for step in range(5)]


@dataclasses.dataclass(frozen=True)
class Unphased(VAE):
    """It may train parts alone, and never does."""

    phased: ClassVar[bool] = True


def test_a_method_that_gives_no_phases_trains_jointly(make_task):
    """To rounding, as its two parts have optimisers of their own."""
    ends = [list(method(**BRIEF).fit(make_task("circle", DATA)))[-1] for method in (VAE, Unphased)]
    for first, second in zip(*(each.model.parameters() for each in ends), strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)

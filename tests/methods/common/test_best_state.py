"""The state that is best on validation points: what is kept, when it is looked at, and that every method keeps it."""

import copy
import math

import pytest
import torch

import methods
from bench.fit.flop_counter import CountingLedger
from methods import pyro_svi
from methods.common import amortised
from methods.common.best_state import LOOK_EVERY, Best
from methods.common.held_out import HeldOut
from methods.mapa import polish
from methods.mapa.polish import PolishedMAPA

LEARNERS = [name for name in methods.BUILTIN if name not in ("oracle", "untrained")]


def weights(model):
    return torch.cat([each.detach().flatten() for each in model.parameters()]).clone()


@pytest.fixture
def falling(monkeypatch):
    """The weights at each look at validation points, which say that each state is worse than the one before."""
    seen = []

    def looked(self, model):
        seen.append(weights(model))
        return -float(len(seen))

    monkeypatch.setattr(HeldOut, "log_likelihood", looked)
    for module in (amortised, pyro_svi):
        monkeypatch.setattr(module, "VALIDATE_EVERY", 5)
    return seen


@pytest.mark.usefixtures("clean_pyro")
@pytest.mark.parametrize("noise", ["known", "learned"])
@pytest.mark.parametrize("data", ["circle", "s_curve"])
@pytest.mark.parametrize("name", LEARNERS)
def test_every_method_ends_at_the_state_that_was_best_on_validation_points(
    name, data, noise, make_task, short, falling
):
    method = short(methods.load(name)(), 40)
    *_, last = method.fit(make_task(data, 40, noise=noise))
    assert len(falling) >= 2
    assert not torch.equal(falling[0], falling[-1])
    assert torch.equal(weights(last.model), falling[0])


def test_the_best_state_is_kept_and_does_not_move_any_more(make_task):
    task = make_task("circle", 60)
    model, best, found = copy.deepcopy(task.model), Best(task), {}
    for factor in (1.0, 3.0, 0.01):
        model.steepen(factor)
        found[best.look(model)] = weights(model)
    assert best.value == max(found) > list(found)[-1]
    assert torch.equal(weights(task.model), found[best.value])


@pytest.mark.parametrize(("steps", "looks"), [(0, [0]), (3, [0, 3]), (10, [0, 10]), (35, [0, 10, 20, 30, 35])])
def test_it_looks_at_the_start_now_and_then_and_at_the_end(steps, looks, make_task, monkeypatch):
    """The states are numbers of steps. The tenth is best, so that the present one is shown up to the twentieth."""
    task, model = make_task("circle"), copy.deepcopy(make_task("circle").model)
    seen, highest = [], []

    def at(model):
        return float(model.network[0].weight[0, 0].detach())

    def value(_, model):
        seen.append(at(model))
        return -abs(at(model) - 10)

    def climb():
        for step in range(1, steps + 1):
            torch.nn.init.constant_(model.network[0].weight, step)
            yield

    def whole():
        highest.append((yield from Best(task).watched(model, climb())))

    monkeypatch.setattr(HeldOut, "log_likelihood", value)
    torch.nn.init.zeros_(model.network[0].weight)
    shown = [at(task.model) for _ in whole()]
    assert seen == looks
    assert highest == [max(-abs(each - 10.0) for each in looks)]
    assert shown[:steps] == [float(step if step < 20 else 10) for step in range(1, steps + 1)]
    assert steps == 0 or shown[-1] == min(steps, 10)
    assert len(shown) == steps + (steps % LOOK_EVERY > 0)


@pytest.mark.parametrize("noise", ["known", "learned"])
def test_other_codes_give_the_same_likelihood(noise, make_task):
    task = make_task("circle", 60, noise=noise)
    model = copy.deepcopy(task.model)
    best = Best(task, 3001)
    assert len(best.held_out.codes) == 3001
    assert best.look(model) == pytest.approx(Best(task).look(model), abs=0.02)


def test_the_polish_is_judged_over_codes_that_it_is_not_trained_on(make_task, monkeypatch):
    seen = {"trained": [], "judged": []}

    def climb(model, x, grid, *_):
        seen["trained"].append(grid.codes)
        yield 0.0

    def judge(self, model):
        seen["judged"].append(self.codes)
        return 0.0

    monkeypatch.setattr(polish, "maximise_likelihood", climb)
    monkeypatch.setattr(HeldOut, "log_likelihood", judge)
    list(PolishedMAPA(steps=20, trial_steps=5).fit(make_task("circle", 60)))
    trained, judged = seen["trained"][-1], seen["judged"][-1]
    assert len(judged) > len(trained)
    assert torch.isin(judged, trained.float()).float().mean() < 0.05


def test_what_is_no_number_is_never_the_best(make_task, monkeypatch):
    task = make_task("circle")
    values, model = iter([math.nan, -3.0, math.nan]), copy.deepcopy(task.model)
    monkeypatch.setattr(HeldOut, "log_likelihood", lambda *_: next(values))
    best = Best(task)
    assert [best.look(model) for _ in range(3)] == [-math.inf, -3.0, -math.inf]
    assert best.value == -3.0


def test_looks_over_more_codes_are_accounted_for_apart(make_task):
    ledger = CountingLedger()
    task = make_task("circle", ledger=ledger)
    model = copy.deepcopy(task.model)
    ledger.start()
    for codes in (2000, 500, 1000):
        Best(task, codes).look(model)
    ledger.stop()
    flops = {work.name: work.flops for work in ledger.account()}
    shared, fewer, more = (flops[f"validation{over}"] for over in ("", " over 500 codes", " over 1000 codes"))
    assert shared == pytest.approx(2 * more, rel=0.02)
    assert more == pytest.approx(2 * fewer, rel=0.02)

"""The state that is best on validation points: its likelihood against quadrature, and what is kept."""

import copy

import pytest
import torch

import datasets
from datasets.base import draw
from datasets.quadrature import log_marginal
from methods.common.posteriors import Prior
from methods.contract.method import Fitted
from methods.mapa.held_out import CODES, POINTS, Kept
from methods.mapa.method import MAPA


class Standing:
    """An attempt at a model that does not move."""

    def __init__(self, model):
        self.model, self.codes = model, torch.zeros(3, model.latent_dim)
        self.fitted = Fitted(model, Prior(model.latent_dim))

    def refined(self, model, boxes):
        assert boxes == 8
        return Fitted(model, Prior(model.latent_dim))


@pytest.mark.parametrize("name", ["circle", "s_curve"])
def test_the_likelihood_of_validation_points_is_that_of_quadrature(name, make_task):
    """Of a decoder that fits, as of others a few far codes decide."""
    task = make_task(name, 200)
    for _ in MAPA(steps=150).fit(task):
        pass
    kept = Kept(task, 8)
    value = kept.look(Standing(task.model))
    decode = lambda z: task.model.decode(z).double()  # noqa: E731
    exact = log_marginal(decode, task.model.variance(), task.validation.double(), task.latent_dim).value.mean()
    assert value == pytest.approx(float(exact), abs=0.02)


def test_the_best_state_is_kept_and_does_not_move_any_more(make_task):
    task = make_task("circle", 60)
    kept = Kept(task, 8)
    values = []
    for factor in (1.0, 3.0, 0.01):
        task.model.steepen(factor)
        values.append(kept.look(Standing(task.model)))
        if kept.value == values[-1]:
            expected = copy.deepcopy(task.model.state_dict())
    assert kept.value == max(values)
    assert values[2] < max(values)
    assert kept.fitted.model is kept.model is not task.model
    for own, other in zip(kept.model.state_dict().values(), expected.values(), strict=True):
        assert torch.equal(own, other)


def test_a_look_is_at_no_more_than_some_points_and_is_accounted_for(make_task):
    ledger_names = []
    task = make_task("circle", POINTS + 100)

    class Ledger:
        def run(self, name, work, *given):
            ledger_names.append(name)
            return work(*given)

    kept = Kept(task, 8)
    kept.ledger = Ledger()
    kept.look(Standing(task.model))
    assert ledger_names == ["validation", "keep"]
    assert kept.x.shape == (POINTS, 2)
    assert len(kept.grid_codes) == CODES


def test_training_points_are_not_looked_at(make_task):
    task = make_task("circle", 60)
    first = Kept(task, 8).look(Standing(task.model))
    task.train[:] = draw(datasets.load("clusters"), 0, 60, 1, 1).train.float()
    assert Kept(task, 8).look(Standing(task.model)) == first

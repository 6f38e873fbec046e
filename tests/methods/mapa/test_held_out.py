"""The state that is best on validation points: what is kept, and that it is accounted for."""

import copy
import math

import torch

from methods.common.latent_grid import GridPosterior, LatentGrid
from methods.common.posteriors import Prior
from methods.contract.method import Fitted
from methods.mapa.assignment import Placement
from methods.mapa.held_out import Kept


class Standing:
    """An attempt at a model that does not move."""

    def __init__(self, model):
        grid = LatentGrid.equal(3, model.latent_dim)
        posterior = GridPosterior(lambda x: torch.zeros(len(x), 3), grid)
        self.model, self.placed = model, Placement(torch.zeros(3, model.latent_dim), torch.arange(3), posterior)
        self.fitted = Fitted(model, Prior(model.latent_dim))
        self.value = -math.inf

    def refined(self, model, boxes):
        assert boxes == 8
        return Fitted(model, Prior(model.latent_dim))


def test_the_best_state_is_kept_and_does_not_move_any_more(make_task):
    task = make_task("circle", 60)
    kept = Kept(task, 8)
    values = []
    for factor in (1.0, 3.0, 0.01):
        task.model.steepen(factor)
        standing = Standing(task.model)
        kept.look(standing)
        values.append(standing.value)
        if kept.value == values[-1]:
            expected = copy.deepcopy(task.model.state_dict())
    assert kept.value == max(values)
    assert values[2] < max(values)
    assert kept.fitted.model is kept.model is not task.model
    for own, other in zip(kept.model.state_dict().values(), expected.values(), strict=True):
        assert torch.equal(own, other)


def test_codes_for_the_noise_are_those_of_the_prior(make_task):
    """An estimate about codes that were chosen for each datum would follow the noise."""
    task = make_task("circle", 60)
    kept, standing = Kept(task, 8), Standing(task.model)
    kept.look(standing)
    assert torch.equal(kept.codes, LatentGrid.equal(3, 1).codes)


def test_an_attempt_has_the_highest_value_of_its_own_looks(make_task):
    task = make_task("circle", 60)
    kept, standing, values = Kept(task, 8), Standing(task.model), []
    for factor in (1.0, 3.0, 0.01):
        task.model.steepen(factor)
        kept.look(standing)
        values.append(kept.log_likelihood(task.model))
        assert standing.value == max(values)
    assert values[2] < max(values)
    other = Standing(copy.deepcopy(task.model))
    kept.look(other)
    assert other.value == values[2]


def test_a_look_is_accounted_for(make_task):
    ledger_names = []
    task = make_task("circle")

    class Ledger:
        def run(self, name, work, *given):
            ledger_names.append(name)
            return work(*given)

    kept = Kept(task, 8)
    kept.ledger = Ledger()
    kept.look(Standing(task.model))
    assert ledger_names == ["validation", "keep"]

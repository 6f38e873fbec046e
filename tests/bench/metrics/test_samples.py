"""Draws of the learned model against true ones."""

from dataclasses import dataclass

import pytest
import torch

from bench.metrics import TrueModel
from bench.metrics.samples import DRAWS, SETS, sample_quality, sample_quality_on_data
from datasets import load
from datasets.base import Observations, Problem, draw


@dataclass(frozen=True)
class Changed:
    """The truth, moved, stretched in noise, or with another parameterisation of its latent space."""

    problem: Problem
    shift: float = 0.0
    noise: float = 1.0
    sign: float = 1.0

    def decode(self, z):
        return self.problem.decoder(self.sign * z.double()) + self.shift

    def variance(self):
        return self.noise * self.problem.noise_variance


def scores(problem, seed=0, **changes):
    return {m.metric: m for m in sample_quality(problem, Changed(problem, **changes), seed)}


@pytest.mark.parametrize("name", ["figure8", "spiral_dots", "s_curve", "linear_gaussian"])
def test_the_truth_is_as_far_from_the_truth_as_two_true_sets(name):
    problem = load(name)
    found = [scores(problem, seed) for seed in range(6)]
    gaps = torch.tensor([each["sample_w2"].value - each["sample_w2_floor"].value for each in found])
    claimed = torch.tensor([[m.stderr for m in each.values()] for each in found]).square().sum(1).mean().sqrt()
    assert abs(float(gaps.mean())) < 4 * float(claimed) / len(found) ** 0.5
    assert all(each["sample_w2_floor"].value > 0 for each in found)


@pytest.mark.parametrize("change", [{"shift": 0.3}, {"noise": 30.0}])
def test_a_wrong_model_is_farther_and_more_so_the_more_it_is_wrong(change):
    problem = load("figure8")
    ((name, value),) = change.items()
    right, wrong, worse = (
        scores(problem, **{name: v})["sample_w2"].value for v in (1.0 * (name == "noise"), value, 3 * value)
    )
    assert right + 0.1 < wrong < worse - 0.1


def test_a_shift_of_everything_is_found_in_full():
    found = scores(load("circle"), shift=5.0)
    assert found["sample_w2"].value == pytest.approx(5 * 2**0.5, abs=0.05)


def test_how_latent_space_is_parameterised_does_not_matter():
    problem = load("figure8")
    plain, turned = scores(problem), scores(problem, sign=-1.0)
    assert (
        abs(plain["sample_w2"].value - turned["sample_w2"].value)
        < 4 * plain["sample_w2"].stderr + 4 * turned["sample_w2"].stderr
    )


def test_the_model_is_never_scored_on_the_draws_that_it_is_compared_with():
    """With the true model's own draws for true ones the distance would be nil."""
    problem = load("circle")
    first, again, other = (sample_quality(problem, TrueModel(problem), seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first[0].value > 0.01
    assert SETS * DRAWS == 2000


def on_data(problem, sizes=(400, 100, 400), **changes):
    data = Observations("own", problem.latent_dim, draw(problem, 0, 1, 1, 1000).test)
    split = draw(data, 0, *sizes)
    return {m.metric: m for m in sample_quality_on_data(data, split, Changed(problem, **changes), 0)}


def test_on_data_the_truth_is_as_far_as_training_from_test_data_and_a_shift_farther():
    found = on_data(load("circle"))
    error = 4 * (found["sample_w2"].stderr + found["sample_w2_floor"].stderr)
    assert abs(found["sample_w2"].value - found["sample_w2_floor"].value) < error
    shifted = on_data(load("circle"), shift=5.0)
    assert shifted["sample_w2"].value == pytest.approx(5 * 2**0.5, abs=0.15)
    assert shifted["sample_w2_floor"] == found["sample_w2_floor"]


def test_on_fewer_data_sets_are_smaller_and_on_too_few_there_are_none():
    problem = load("circle")
    assert on_data(problem, (40, 100, 400))["sample_w2_floor"].value > on_data(problem)["sample_w2_floor"].value
    assert on_data(problem, (3, 100, 400)) == {}

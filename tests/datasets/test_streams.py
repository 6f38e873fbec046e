"""Random streams: reproducible, and independent of one another."""

import pytest
import torch

import datasets
from datasets.base import STREAMS, draw, stream

CIRCLE = datasets.load("circle")


def test_same_seed_same_draws():
    first, again = draw(CIRCLE, 3, 20, 30, 40), draw(CIRCLE, 3, 20, 30, 40)
    for name in STREAMS:
        assert torch.equal(getattr(first, name), getattr(again, name))


def test_sizes_and_types_are_as_asked():
    split = draw(datasets.load("torus"), 0, 20, 30, 40)
    assert [tuple(getattr(split, name).shape) for name in STREAMS] == [(20, 3), (30, 3), (40, 3)]
    assert all(getattr(split, name).dtype == torch.float64 for name in STREAMS)


@pytest.mark.parametrize("changed", range(3))
def test_the_size_of_a_set_changes_no_other_set(changed):
    sizes = [20, 20, 20]
    before = draw(CIRCLE, 3, *sizes)
    sizes[changed] = 33
    after = draw(CIRCLE, 3, *sizes)
    for i, name in enumerate(STREAMS):
        if i != changed:
            assert torch.equal(getattr(before, name), getattr(after, name))


def test_streams_of_sets_seeds_and_problems_all_differ():
    keys = [(p, seed, name) for p in datasets.BUILTIN for seed in range(20) for name in STREAMS]
    firsts = {float(torch.rand(1, generator=stream(*key), dtype=torch.float64)) for key in keys}
    assert len(firsts) == len(keys)


def test_sets_are_uncorrelated():
    split = draw(datasets.load("linear_gaussian"), 0, 4000, 4000, 4000)
    columns = torch.cat([split.train, split.validation, split.test], 1).T
    between = torch.corrcoef(columns)
    for i in range(3):
        between[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = 0
    assert between.abs().max() < 4 / 4000**0.5


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draw(CIRCLE, 3, 20, 20, 20)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "name", [name for name in datasets.BUILTIN if name not in ("digits", "mnist5k", *datasets.DISCRETE)]
)
def test_joint_draws_have_a_standard_normal_code_and_the_stated_noise(name):
    problem = datasets.load(name)
    n = 20_000
    z, x = problem.sample_joint(n, stream(name, 5, "moments"))
    standard = torch.cat([z, (x - problem.decoder(z)) / problem.noise_variance**0.5], 1)
    assert standard.mean(0).abs().max() < 4 / n**0.5
    off = torch.cov(standard.T) - torch.eye(standard.shape[1])
    assert off.abs().max() < 4 * (2 / n) ** 0.5
    assert torch.equal(x, problem.sample(n, stream(name, 5, "moments")))

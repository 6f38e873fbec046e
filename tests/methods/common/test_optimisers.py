"""The optimisers against the package `schedulefree` and torch, alone and as several replicas that pause by turns."""

import itertools
import math

import pytest
import torch
from schedulefree import AdamWScheduleFree
from torch import nn

from methods.common.optimisers import Anytime, Cosine, cosine

RATE = 3e-3
STEPS = 200
REPLICAS = 3


def network():
    """A float64 network, so that what differs is the algorithm and not rounding."""
    generator = torch.Generator().manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    with torch.no_grad():
        for p in layers.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) / 2)
    return layers


def flat(values):
    return torch.cat([v.detach().flatten() for v in values])


def gradient_at(layers, weights, step):
    """A noisy gradient at weights (P,), another one at each step."""
    generator = torch.Generator().manual_seed(step)
    x, y = (torch.randn(20, size, generator=generator, dtype=torch.float64) for size in (3, 2))
    with torch.no_grad():
        nn.utils.vector_to_parameters(weights, layers.parameters())
    loss = (layers(x) - y - x[:, :2].sin()).square().mean()
    return flat(torch.autograd.grad(loss, [*layers.parameters()]))


def ours(kind, rate=RATE, steps=STEPS):
    """The weights and what is evaluated after each step, (steps, P) of each."""
    layers = network()
    weights = flat(layers.parameters())[None]
    evaluated = weights.clone()
    optimiser, found = kind(weights, evaluated, rate), []
    for step in range(steps):
        optimiser.step(gradient_at(layers, weights[0].clone(), step)[None], [True], step / steps)
        found.append((weights[0].clone(), evaluated[0].clone()))
    return [torch.stack(each) for each in zip(*found, strict=True)]


def schedule_free(beta=0.95, power=2):
    """The same of the package."""
    layers, found = network(), []
    settings = {"r": power, "weight_decay": 0, "warmup_steps": 0, "foreach": False}
    optimiser = AdamWScheduleFree(layers.parameters(), lr=RATE, betas=(beta, 0.999), **settings)
    optimiser.train()
    for step in range(STEPS):
        gradient = gradient_at(layers, flat(layers.parameters()), step)
        nn.utils.vector_to_parameters(gradient, [p.grad for p in with_gradients(layers)])
        optimiser.step()
        optimiser.eval()
        mean = flat(layers.parameters()).clone()
        optimiser.train()
        found.append((flat(layers.parameters()).clone(), mean))
    return [torch.stack(each) for each in zip(*found, strict=True)]


def with_gradients(layers):
    for p in layers.parameters():
        p.grad = torch.zeros_like(p)
    return layers.parameters()


def test_anytime_is_the_optimiser_of_the_package():
    for found, expected in zip(ours(Anytime), schedule_free(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("other", [{"beta": 0.9}, {"power": 1}], ids=["beta", "power"])
def test_other_settings_of_the_package_are_another_path(other):
    (_, found), (_, expected) = ours(Anytime), schedule_free(**other)
    assert (found - expected).abs().max() > 0.1 * RATE


def test_the_mean_has_weights_that_grow_as_the_square_and_forgets_its_start():
    """Of iterates under a constant gradient, which are 0 - rate, 0 - 2 rate, ..."""
    weights = torch.zeros(1, 1, dtype=torch.float64)
    evaluated = weights.clone()
    optimiser = Anytime(weights, evaluated, RATE)
    for k in range(1, 31):
        optimiser.step(torch.ones(1, 1, dtype=torch.float64), [True], 0.0)
        squares = [i**2 for i in range(1, k + 1)]
        mean = sum(i * square for i, square in enumerate(squares, 1)) / sum(squares)
        assert float(evaluated) == pytest.approx(-RATE * mean, rel=1e-6)
        assert float(weights) == pytest.approx(-RATE * (0.05 * k + 0.95 * mean), rel=1e-6)


def test_anytime_does_not_know_how_many_steps_are_to_come():
    for short, long in zip(ours(Anytime, steps=50), ours(Anytime), strict=True):
        assert torch.equal(short, long[:50])


def test_cosine_is_adam_of_torch_with_the_factor():
    layers, expected = network(), []
    optimiser = torch.optim.Adam(layers.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for step in range(STEPS):
        gradient = gradient_at(layers, flat(layers.parameters()), step)
        nn.utils.vector_to_parameters(gradient, [p.grad for p in with_gradients(layers)])
        optimiser.step()
        schedule.step()
        expected.append(flat(layers.parameters()).clone())
    weights, evaluated = ours(Cosine)
    assert torch.equal(weights, evaluated)
    torch.testing.assert_close(weights, torch.stack(expected), rtol=0, atol=1e-9)
    assert (weights - ours(Cosine, steps=2 * STEPS)[0][:STEPS]).abs().max() > RATE


def test_while_parts_take_turns_anytime_is_adam_and_the_mean_begins_afterwards():
    """The second moment is remembered, and the last iterate of the turns is the first one of the mean."""
    layers = network()
    weights, turns = flat(layers.parameters())[None], 50
    evaluated = weights.clone()
    optimiser, adam = Anytime(weights, evaluated, RATE), torch.optim.Adam(layers.parameters(), lr=RATE)
    for step in range(turns):
        gradient = gradient_at(layers, flat(layers.parameters()), step)
        optimiser.step(gradient[None], [True], 0.0, [True])
        nn.utils.vector_to_parameters(gradient, [p.grad for p in with_gradients(layers)])
        adam.step()
        torch.testing.assert_close(weights[0], flat(layers.parameters()), rtol=0, atol=1e-12)
        assert torch.equal(weights, evaluated)
    last, squares = weights.clone(), 1
    for k in range(2, 20):
        optimiser.step(torch.zeros_like(weights), [True], 0.0)
        assert torch.equal(evaluated, last)  # without a gradient, nothing moves: momentum is not carried over
        squares += k**2
    moved = optimiser.iterate.clone()
    optimiser.step(torch.ones_like(weights), [True], 0.0)
    torch.testing.assert_close(evaluated - last, (optimiser.iterate - moved) * 400 / (squares + 400))


def test_a_pause_does_not_end_the_mean():
    weights = torch.zeros(1, 1, dtype=torch.float64)
    optimiser = Anytime(weights, weights.clone(), RATE)
    for _ in range(3):
        optimiser.step(torch.ones_like(weights), [True], 0.0)
    before = optimiser.evaluated.clone()
    optimiser.step(torch.ones_like(weights), [False], 0.0, [True])
    assert optimiser.averaged == [3]
    assert torch.equal(optimiser.evaluated, before)


# Who takes which step: all by turns, one that starts late, one that never pauses and one that stops.
PATTERNS = [
    [[True, False, True] if step % 3 else [False, True, True] for step in range(60)],
    [[step > 20, True, step < 30] for step in range(60)],
    [[False, True, False]] * 60,
    [[True, True, True]] * 60,
]


@pytest.mark.parametrize("alternates", [False, True], ids=["joint", "parts"])
@pytest.mark.parametrize("kind", [Anytime, Cosine])
@pytest.mark.parametrize("pattern", PATTERNS, ids=["turns", "late", "one", "all"])
def test_each_replica_is_as_if_it_were_alone_with_its_own_steps(kind, pattern, alternates):
    """Also where replicas train their parts by turns up to a step of their own."""
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(REPLICAS, 7, generator=generator, dtype=torch.float64)
    gradients = torch.randn(len(pattern), REPLICAS, 7, generator=generator, dtype=torch.float64)
    together = [start.clone(), start.clone()]
    stacked = kind(*together, RATE)
    alone = [[start[r : r + 1].clone(), start[r : r + 1].clone()] for r in range(REPLICAS)]
    solo = [kind(*each, RATE) for each in alone]
    for step, (active, gradient) in enumerate(zip(pattern, gradients, strict=True)):
        progress = step / len(pattern)
        partial = [alternates and step < 15 * (1 + r) for r in range(REPLICAS)]
        stacked.step(gradient, active, progress, partial)
        for r, one in enumerate(solo):
            if active[r]:
                one.step(gradient[r : r + 1], [True], progress, partial[r : r + 1])
        for found, *expected in zip(together, *alone, strict=True):
            torch.testing.assert_close(found, torch.cat(expected), rtol=1e-12, atol=1e-12)
    for r, taken in enumerate(zip(*pattern, strict=True)):
        assert any(taken) != torch.equal(together[1][r], start[r])


def test_cosine_falls_from_one_to_zero():
    values = [cosine(i / 100) for i in range(131)]
    assert values[0] == 1
    assert values[50] == pytest.approx(0.5)
    assert values[25] == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert all(a > b for a, b in itertools.pairwise(values[:101]))
    assert values[100:] == [0] * 31

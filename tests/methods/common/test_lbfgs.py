"""L-BFGS on problems whose minimum is known."""

import itertools

import pytest
import torch
from torch import nn

from methods.common.lbfgs import _Memory, _move, lbfgs
from methods.contract.method import NullLedger


def doubles(*values):
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def quadratic(size, condition=1e3):
    """A convex quadratic of a condition number, as a matrix and the place of its minimum."""
    generator = torch.Generator().manual_seed(size)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    matrix = basis @ torch.diag(torch.logspace(0, torch.tensor(condition).log10(), size).double()) @ basis.T
    return matrix, torch.randn(size, generator=generator, dtype=torch.float64)


def two_loop(gradient, steps, changes):
    """The classic recursion (Nocedal & Wright 2006, algorithm 7.4), oldest pair first."""
    direction, weights = gradient.clone(), []
    for s, y in zip(reversed(steps), reversed(changes), strict=True):
        weights.append((s @ direction) / (s @ y))
        direction -= weights[-1] * y
    direction *= (steps[-1] @ changes[-1]) / (changes[-1] @ changes[-1])
    for s, y, weight in zip(steps, changes, reversed(weights), strict=True):
        direction += s * (weight - (y @ direction) / (s @ y))
    return -direction


@pytest.mark.parametrize("start", [(-1.2, 1.0), (0.0, 0.0), (-1.2, 1.0, -0.5, 2.0)])
def test_reaches_the_bottom_of_rosenbrocks_valley(start):
    x = doubles(*start)
    losses = list(itertools.islice(lbfgs([x], lambda: rosenbrock(x), NullLedger()), 200))
    assert losses[-1] < 1e-12
    assert (x.detach() - 1).abs().max() < 1e-6


@pytest.mark.parametrize("history", [1, 5, 30])
@pytest.mark.parametrize("size", [1, 3, 20])
def test_reproduces_the_minimiser_of_a_convex_quadratic(size, history):
    matrix, minimiser = quadratic(size)
    x = doubles(*[0.0] * size)
    for _ in itertools.islice(
        lbfgs([x], lambda: (x - minimiser) @ matrix @ (x - minimiser) / 2, NullLedger(), history), 3000
    ):
        pass
    assert (x.detach() - minimiser).abs().max() < 1e-6


def test_ends_by_itself_at_a_minimum():
    x = doubles(3.0, -2.0)
    losses = list(lbfgs([x], lambda: torch.sum(x**2), NullLedger()))
    assert 0 < len(losses) < 20
    assert list(lbfgs([x], lambda: torch.sum(x**2) + 1, NullLedger())) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_loss_is_lower_than_the_one_before_and_is_that_of_the_parameters(dtype):
    x = nn.Parameter(torch.tensor([-1.2, 1.0, 0.3], dtype=dtype))
    before = float(rosenbrock(x.detach()))
    count = 0
    for loss in itertools.islice(lbfgs([x], lambda: rosenbrock(x), NullLedger()), 60):
        assert loss < before
        assert loss == float(rosenbrock(x.detach()))
        before, count = loss, count + 1
    assert count > 20


@pytest.mark.parametrize("pairs", [1, 2, 4, 5, 6, 13])
def test_direction_is_that_of_the_two_loop_recursion(pairs):
    """Also once old pairs have made way for new ones, in a memory of five."""
    matrix, _ = quadratic(9)
    generator = torch.Generator().manual_seed(pairs)
    memory = _Memory(torch.zeros(9, dtype=torch.float64), 5)
    steps = [torch.randn(9, generator=generator, dtype=torch.float64) for _ in range(pairs)]
    changes = [matrix @ s + 0.01 * s**3 for s in steps]
    for s, y in zip(steps, changes, strict=True):
        memory.add(s, y)
    gradient = torch.randn(9, generator=generator, dtype=torch.float64)
    expected = two_loop(gradient, steps[-5:], changes[-5:])
    found = memory.direction(gradient)
    assert (found - expected).abs().max() < 1e-8 * expected.abs().max()


def test_an_empty_memory_gives_steepest_descent():
    gradient = torch.tensor([1.0, -2.0], dtype=torch.float64)
    memory = _Memory(gradient, 5)
    assert torch.equal(memory.direction(gradient), -gradient)


@pytest.mark.parametrize("curvature", [-1.0, 0.0])
def test_a_pair_without_positive_curvature_is_told(curvature):
    point, slope = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    step = torch.tensor([1.0, 0.0], dtype=torch.float64)
    change = curvature * step + torch.tensor([0.0, 1.0], dtype=torch.float64)
    *moved, bends = _move(point, point + step, slope, slope + change)
    for found, expected in zip((*moved, point, slope), (step, change, step, 1 + change), strict=True):
        assert torch.equal(found, expected)
    assert not bends
    assert _move(point, point + step, slope, slope + step)[-1]


def test_what_is_forgotten_takes_no_part():
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.randn(9, generator=generator, dtype=torch.float64) for _ in range(4)]
    memory, fresh = (_Memory(pairs[0], 5) for _ in range(2))
    for step in pairs[:3]:
        memory.add(step, 2 * step)
    memory.forget()
    for each in (memory, fresh):
        each.add(pairs[3], 3 * pairs[3])
    torch.testing.assert_close(memory.direction(pairs[0]), fresh.direction(pairs[0]))


def test_parameters_keep_their_identity_and_keep_training():
    """They become views of one vector, which must not cut them off from gradients, optimisers and copies."""
    torch_generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 2, generator=torch_generator)
    y = x @ torch.tensor([[1.0], [-2.0]]) + 0.5
    network = nn.Linear(2, 1)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    parameters = list(network.parameters())

    def loss():
        return (network(x) - y).square().mean()

    assert [*itertools.islice(lbfgs(parameters, loss, NullLedger()), 50)][-1] < 1e-9
    assert all(a is b for a, b in zip(parameters, network.parameters(), strict=True))
    assert network.weight.shape == (1, 2)
    assert network.weight.is_leaf
    y = y + 1
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    torch.testing.assert_close(network.weight.detach(), torch.tensor([[1.0, -2.0]]), atol=1e-2, rtol=0)
    torch.testing.assert_close(network.bias.detach(), torch.tensor([1.5]), atol=1e-2, rtol=0)
    assert [*itertools.islice(lbfgs(parameters, loss, NullLedger()), 50)][-1] < 1e-9


def test_a_parameter_used_by_no_one_stays():
    x, idle = doubles(3.0), doubles(7.0, 8.0)
    list(itertools.islice(lbfgs([idle, x], lambda: torch.sum(x**2), NullLedger()), 20))
    assert idle.tolist() == [7, 8]
    assert abs(x.item()) < 1e-6


def test_a_loss_that_is_not_a_number_ends_the_search_where_it_was():
    x, calls = doubles(2.0), []

    def loss():
        calls.append(x.item())
        return torch.sum(x**2 if len(calls) < 3 else x * torch.nan)

    (value,) = lbfgs([x], loss, NullLedger())
    assert len(calls) > 10
    assert x.item() ** 2 == value < 4

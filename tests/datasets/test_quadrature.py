"""Adaptive quadrature against brute force, closed forms and its own claims."""

import math

import numpy as np
import pytest
import torch

import datasets
from datasets.base import draw
from datasets.linear import linear_gaussian
from datasets.quadrature import (
    KRONROD,
    RULE,
    _bisect,
    _first_boxes,
    _Integral,
    _log_mass,
    _neighbourhoods,
    _rule,
    log_marginal,
)
from likelihoods import Gaussian

PROBLEMS = ["circle", "figure8", "absolute", "clusters", "spiral_dots", "swiss_roll", "s_curve", "torus", "pinwheel"]
PROBLEMS += datasets.HELD_OUT
FAR = torch.tensor([[30.0, 0.0]], dtype=torch.float64)


def network(latent, data, scale, seed):
    """A random decoder with one hidden layer of tanh units, the steeper the larger `scale`."""
    generator = torch.Generator().manual_seed(seed)
    first, bias, last = (
        torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((latent, 20), (20,), (20, data))
    )
    return lambda z: torch.tanh(scale * z @ first + bias) @ last / math.sqrt(20)


def steps(z):
    """Two sharp steps that cross, with a gentle slope: L = 2, D = 3."""
    jump = torch.tanh(30 * torch.stack([z[..., 0] - 0.3, z[..., 0] + z[..., 1]], -1))
    return torch.cat([jump, z[..., :1] / 2], -1)


def brute_force(decode, noise, x, latent, nodes, radius):
    """log p(x) by the trapezoid rule, with `nodes` equal steps on each axis of the cube of half-width `radius`."""
    axis = np.linspace(-radius, radius, nodes)
    grid = torch.cartesian_prod(*[torch.tensor(axis)] * latent).reshape(-1, latent)
    parts = []
    for z in grid.split(100_000):
        distance = torch.cdist(x, decode(z), compute_mode="donot_use_mm_for_euclid_dist")
        exponent = distance.square() / (-2 * noise)
        parts.append(torch.logsumexp(exponent - (z**2).sum(1) / 2, 1))
    normaliser = latent / 2 * math.log(2 * math.pi) + x.shape[1] / 2 * math.log(2 * math.pi * noise)
    return torch.logsumexp(torch.stack(parts), 0) + latent * math.log(axis[1] - axis[0]) - normaliser


CASES = {
    "network on a line": (network(1, 2, 3.0, 0), 0.02, 1, 200_001, 9.0),
    "steep network on a line": (network(1, 3, 20.0, 1), 0.001, 1, 200_001, 9.0),
    "spiral_dots": (datasets.load("spiral_dots").decoder, 0.08, 1, 200_001, 9.0),
    "network on a plane": (network(2, 3, 1.5, 2), 0.02, 2, 701, 7.0),
    "crumpled network on a plane": (network(2, 3, 4.0, 3), 0.02, 2, 701, 7.0),
    "steps on a plane": (steps, 0.08, 2, 2401, 7.0),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    decode, noise, latent, nodes, radius = CASES[request.param]
    generator = torch.Generator().manual_seed(11)
    z = torch.randn(10 if latent == 1 else 6, latent, generator=generator, dtype=torch.float64)
    mean = decode(z)
    x = mean + math.sqrt(noise) * torch.randn(mean.shape, generator=generator, dtype=torch.float64)
    return decode, noise, x, latent, brute_force(decode, noise, x, latent, nodes, radius)


@pytest.mark.parametrize("tolerance", [0.3, 1e-3, 1e-5])
def test_error_is_below_its_bound_and_the_bound_below_the_tolerance(case, tolerance):
    decode, noise, x, latent, expected = case
    found = log_marginal(decode, noise, x, latent, tolerance)
    gap = (found.value - expected).abs()
    assert gap.mean() <= found.error.mean() + 1e-8
    assert (gap <= found.error + 1e-8).all()
    assert found.error.mean() <= tolerance


def test_brute_force_sees_a_wrong_noise(case):
    """The comparison above is not blind."""
    decode, noise, x, latent, expected = case
    assert (log_marginal(decode, 1.05 * noise, x, latent).value - expected).abs().mean() > 5e-3


@pytest.mark.parametrize("latent", [1, 2])
@pytest.mark.parametrize("company", [0, 50])
def test_an_outlier_under_a_linear_decoder(latent, company):
    problem = linear_gaussian(latent, 2, 0.01)
    x = torch.cat([FAR, draw(problem, 0, 1, 1, 50).test[:company]])
    expected = float(problem.log_prob(x).value[0])
    found = log_marginal(problem.decoder, 0.01, x, latent, 1e-3)
    assert expected < -3000
    assert abs(float(found.value[0]) - expected) <= float(found.error[0]) + 1e-9
    assert float(found.error.mean()) <= 1e-3


@pytest.mark.parametrize("name", ["circle", "spiral_dots"])
def test_an_outlier_at_the_ends_of_latent_space(name):
    """The nearest point of the curve has its code at infinity, or nearly."""
    problem = datasets.load(name)
    found = problem.log_prob(FAR, 1e-4)
    expected = brute_force(problem.decoder, problem.noise_variance, FAR, 1, 1_000_001, 20.0)
    assert float(expected) < -1000
    assert abs(float(found.value - expected)) <= float(found.error) + 1e-7
    assert float(found.error) <= 1e-4


@pytest.mark.parametrize("name", ["figure8", "spiral_dots", "s_curve", "pinwheel"])
def test_a_point_alone_is_worth_what_it_is_in_company(name):
    problem = datasets.load(name)
    x = draw(problem, 1, 1, 1, 40).test
    together = problem.log_prob(x)
    alone = problem.log_prob(x[25:26])
    gap = abs(float(alone.value[0] - together.value[25]))
    assert gap <= float(alone.error[0] + together.error[25]) + 1e-9
    assert float(alone.error[0]) <= 1e-3


def test_log_mass_of_boxes_is_right_where_the_mass_underflows():
    centre = torch.tensor([[0.0, 0.3], [1.5, -7.0], [-60.0, 0.1]], dtype=torch.float64)
    half = torch.tensor([[1.0, 2.0], [0.5, 0.5], [0.25, 8.0]], dtype=torch.float64)
    axis = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    z = centre[..., None] + half[..., None] * axis
    log_density = -(z**2) / 2 - math.log(2 * math.pi) / 2
    expected = (torch.logsumexp(log_density, -1) + (half * 1e-5).log()).sum(1)
    assert expected.min() < -1700
    np.testing.assert_allclose(_log_mass(centre, half).numpy(), expected.numpy(), atol=1e-3)


@pytest.mark.parametrize("latent", [1, 2])
def test_many_points_under_little_noise(latent):
    """Their densities differ by more than a float can hold, in whatever order boxes come."""
    problem = linear_gaussian(latent, 2, 1e-3)
    x = draw(problem, 0, 1, 1, 1000 if latent == 1 else 8).test
    expected = problem.log_prob(x).value
    found = log_marginal(problem.decoder, 1e-3, x, latent)
    assert (found.value - expected).abs().mean() <= 1e-3
    assert ((found.value - expected).abs() <= found.error + 1e-9).all()


@pytest.mark.parametrize("latent", [1, 2])
def test_boxes_may_come_one_by_one_or_all_at_once(latent, monkeypatch):
    """Values are kept relative to the greatest so far, which must not depend on when it is met."""
    problem = linear_gaussian(latent, 2, 0.002 if latent == 1 else 0.02)
    x = draw(problem, 0, 1, 1, 3).test
    at_once = log_marginal(problem.decoder, problem.noise_variance, x, latent)
    monkeypatch.setattr("datasets.quadrature.INTEGRANDS_AT_ONCE", 1)
    one_by_one = log_marginal(problem.decoder, problem.noise_variance, x, latent)
    torch.testing.assert_close(one_by_one.value, at_once.value, atol=1e-9, rtol=0)
    torch.testing.assert_close(one_by_one.error, at_once.error, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("size", ["GROUP_SIZE", "POINTS_AT_ONCE", "DECODED_AT_ONCE"])
def test_no_size_of_a_batch_matters(size, monkeypatch):
    problem = datasets.load("s_curve")
    x = draw(problem, 2, 1, 1, 28).test
    usual = problem.log_prob(x)
    monkeypatch.setattr(f"datasets.quadrature.{size}", 25)
    small = problem.log_prob(x)
    assert ((small.value - usual.value).abs() <= small.error + usual.error + 1e-9).all()
    assert float(small.error.mean()) <= 1e-3


@pytest.mark.parametrize("count", [1, 7, 64, 65, 1000])
def test_neighbourhoods_hold_every_point_and_are_small_in_space(count):
    points = torch.rand(count, 2, generator=torch.Generator().manual_seed(0))
    index = _neighbourhoods(points, 8)
    assert index.shape[1] <= 8
    assert sorted(set(index.flatten().tolist())) == list(range(count))
    near = points[index]
    extent = (near.amax(1) - near.amin(1)).amax(1)
    assert float(extent.mean()) <= 2 * math.sqrt(8 / count)


def test_boxes_are_decoded_once_for_all_points():
    """Twenty times as many points in the same places, in groups of their own, need hardly more nodes."""
    decode, decoded = network(2, 2, 1.5, 4), []

    def counted(z):
        decoded.append(len(z))
        return decode(z)

    def nodes(n):
        decoded.clear()
        log_marginal(counted, 0.02, decode(torch.randn(n, 2, generator=torch.Generator().manual_seed(0)).double()), 2)
        return sum(decoded)

    assert nodes(1000) < 2 * nodes(50)


@pytest.mark.parametrize("width", [0.006, 0.0005])
def test_a_bump_between_the_first_nodes_is_found(width):
    """There alone x is likely, by hundreds of nats over all that is seen at first."""

    def decode(z):
        bump = 3 * torch.exp(-(((z - 0.327) / width) ** 2) / 2)
        return torch.cat([bump, 0 * z], -1)

    x = torch.tensor([[3.0, 0.0]], dtype=torch.float64)
    expected = brute_force(decode, 0.01, x, 1, 1_000_001, 9.0)
    assert abs(float(log_marginal(decode, 0.01, x, 1).value - expected)) < 1e-3


@pytest.mark.parametrize("name", ["circle", "spiral_dots", "s_curve", "pinwheel"])
def test_boxes_that_are_left_out_do_not_matter(name, monkeypatch):
    problem = datasets.load(name)
    x = torch.cat([draw(problem, 3, 1, 1, 60).test, torch.full((1, problem.data_dim), 2.5, dtype=torch.float64)])
    found = problem.log_prob(x)
    monkeypatch.setattr("datasets.quadrature.NEGLIGIBLE", math.inf)
    whole = problem.log_prob(x)
    gap = (found.value - whole.value).abs()
    assert (gap <= found.error + whole.error).all()
    assert gap.mean() < 1e-5


def test_a_box_left_out_too_early_shows_in_the_error(monkeypatch):
    problem = datasets.load("circle")
    x = draw(problem, 3, 1, 1, 200).test
    exact = problem.log_prob(x, 1e-6).value
    monkeypatch.setattr("datasets.quadrature.NEGLIGIBLE", 0.0)
    found = problem.log_prob(x)
    assert (exact - found.value).max() > 1e-2
    assert (exact - found.value <= found.error + 1e-9).all()


@pytest.mark.parametrize("name", PROBLEMS)
def test_values_of_every_problem_agree_with_a_much_finer_rule(name):
    problem = datasets.load(name)
    x = draw(problem, 4, 1, 1, 200).test
    found, fine = problem.log_prob(x), problem.log_prob(x, 1e-5)
    gap = (found.value - fine.value).abs()
    assert (gap <= found.error + fine.error + 1e-9).all()
    assert gap.mean() < 1e-5


def test_a_decoder_that_gives_nan_has_no_likelihood(monkeypatch):
    monkeypatch.setattr("datasets.quadrature.MAX_NODES", 10_000)
    assert torch.isnan(log_marginal(lambda z: math.nan * z, 0.1, torch.zeros(3, 1), 1).value).all()


def test_order_of_points_does_not_matter():
    problem = datasets.load("torus")
    x = draw(problem, 1, 1, 1, 150).test
    forward, backward = problem.log_prob(x), problem.log_prob(x.flip(0))
    gap = (forward.value - backward.value.flip(0)).abs()
    assert (gap <= forward.error + backward.error.flip(0)).all()
    assert gap.mean() < 2e-3


def test_the_error_is_the_same_whichever_axis_it_comes_from():
    decode = network(1, 2, 5.0, 6)
    x = decode(torch.randn(50, 1, generator=torch.Generator().manual_seed(0)).double())
    first, second = (log_marginal(lambda z, a=axis: decode(z[:, a : a + 1]), 0.02, x, 2) for axis in range(2))
    assert 0.5 < float(first.error.mean() / second.error.mean()) < 2
    assert ((first.value - second.value).abs() <= first.error + second.error).all()


def test_density_integrates_to_one():
    problem = datasets.load("figure8")
    axes = torch.linspace(-2, 2, 61, dtype=torch.float64), torch.linspace(-2, 2, 61, dtype=torch.float64)
    density = problem.log_prob(torch.cartesian_prod(*axes)).value.exp()
    assert abs(float(density.sum()) * (4 / 60) ** 2 - 1) < 1e-4


def test_moving_the_decoder_and_the_points_alike_changes_nothing():
    problem = datasets.load("circle")
    x = draw(problem, 0, 1, 1, 50).test
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    moved = log_marginal(lambda z: problem.decoder(z) @ turn + 100, 0.01, x @ turn + 100, 1, 1e-6)
    assert (moved.value - problem.log_prob(x, 1e-6).value).abs().max() < 1e-5


def test_a_decoder_in_single_precision_is_taken():
    problem = datasets.load("circle")
    x = draw(problem, 0, 1, 1, 50).test
    found = log_marginal(lambda z: problem.decoder(z).float(), 0.01, x.float(), 1)
    assert found.value.dtype == torch.float64
    assert (found.value - problem.log_prob(x).value).abs().mean() < 2e-3


@pytest.mark.parametrize("latent", [0, 3])
def test_other_latent_dimensions_are_refused(latent):
    with pytest.raises(ValueError, match=f"1 or 2, got {latent}"):
        log_marginal(lambda z: z, 0.1, torch.zeros(1, latent), latent)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_points_that_are_not_finite_are_refused(value):
    x = torch.zeros(3, 2)
    x[1, 1] = value
    with pytest.raises(ValueError, match="finite"):
        datasets.load("circle").log_prob(x)


def test_gradients_are_not_recorded():
    weight = torch.ones(2, requires_grad=True)
    assert not log_marginal(lambda z: z * weight, 0.1, torch.zeros(1, 2), 1).value.requires_grad


@pytest.mark.parametrize("size", KRONROD)
def test_rules_are_exact_to_their_degree_and_no_further(size):
    """A Kronrod rule of 2g + 1 nodes, g odd, is exact to degree 3g + 2, and its Gauss rule to 2g - 1."""
    latent = {points: dim for dim, points in RULE.items()}[size]
    nodes, rows = (t.numpy() for t in _rule(latent))
    gauss = size // 2
    for axis in range(latent):
        others = 2.0 ** (latent - 1)

        def mistake(row, degree, axis=axis, others=others):
            return abs(rows[row] @ nodes[:, axis] ** degree / others - (1 + (-1) ** degree) / (degree + 1))

        assert max(mistake(0, degree) for degree in range(3 * gauss + 3)) < 1e-14
        assert mistake(0, 3 * gauss + 3) > 1e-10
        assert max(mistake(1 + axis, degree) for degree in range(2 * gauss)) < 1e-14
        assert mistake(1 + axis, 2 * gauss) > 1e-5
        for other in range(latent):
            if other != axis:
                assert mistake(1 + other, 2 * gauss) < 1e-14


def test_gauss_rules_are_legendres():
    nodes, rows = (t.numpy() for t in _rule(1))
    used = rows[1] > 0
    expected_nodes, expected_weights = np.polynomial.legendre.leggauss(7)
    np.testing.assert_allclose(nodes[used, 0], expected_nodes, atol=1e-14)
    np.testing.assert_allclose(rows[1][used], expected_weights, atol=1e-14)


def test_bisection_halves_each_box_along_its_axis():
    centre = torch.tensor([[0.0, 0.0], [3.0, 1.0]], dtype=torch.float64)
    half = torch.tensor([[1.0, 2.0], [0.5, 1.0]], dtype=torch.float64)
    centres, halves = _bisect(centre, half, torch.tensor([1, 0]))
    assert centres.tolist() == [[0, -1], [2.75, 1], [0, 1], [3.25, 1]]
    assert halves.tolist() == [[1, 1], [0.25, 1]] * 2


def test_halves_are_merged_where_their_box_tells_what_they_hold():
    """All of them under a decoder that hardly moves, and none that holds a bump between the nodes of its box."""

    def boxes(decode):
        integral = _Integral(decode, Gaussian(0.01), torch.zeros(1, 1, 1).double(), torch.ones(1, 1).double(), 1)
        return *_first_boxes(1, 8.0), *integral._merged(*_first_boxes(1, 8.0), 8.0)

    centre, half, flat, wide = boxes(lambda z: 0.01 * z)
    assert len(flat) == 1
    assert wide.item() == 8.0
    _, _, bumpy, narrow = boxes(lambda z: 0.01 * z + torch.exp(-(((z - 0.327) / 0.003) ** 2) / 2))
    assert narrow.min() == half.min()
    assert narrow[((bumpy - 0.327).abs() <= narrow)].item() == half.min()
    assert float(narrow.sum()) == pytest.approx(8.0)
    assert 1 < len(bumpy) < len(centre) / 4

"""Placement: paths and assignments against brute force, and what they must not depend on."""

import itertools
import math

import numpy as np
import pytest
import torch

import datasets
from datasets.base import draw
from methods.common.latent_grid import LatentGrid
from methods.contract.method import NullLedger
from methods.mapa.deconvolution import estimate
from methods.mapa.placement import (
    _position_along,
    assignment,
    candidates,
    path_order,
    shortest_path,
    transport,
)

LEDGER = NullLedger()


def length(distance, path):
    path = np.asarray(path)
    return distance[path[:-1], path[1:]].sum()


def random_distances(nodes, seed):
    points = np.random.default_rng(seed).normal(size=(nodes, 2))
    return np.linalg.norm(points[:, None] - points, axis=-1)


def same_up_to_reversal(first, second):
    return np.array_equal(first, second) or np.array_equal(first, len(second) - 1 - second)


def atoms_of(x, noise=0.01):
    """Where the signals of x are estimated to lie."""
    return estimate(torch.as_tensor(x), noise, 6.0, 5, 1, LEDGER).atoms.numpy()


def half_circle(n, seed=0):
    """Points on a half circle in no order, and their angles."""
    angle = np.random.default_rng(seed).uniform(0, math.pi, n)
    return np.stack([np.cos(angle), np.sin(angle)], 1), angle


@pytest.mark.parametrize("nodes", [2, 3, 4, 5, 6, 7])
def test_paths_are_as_short_as_of_all_permutations(nodes):
    """2-opt is a heuristic: nearly always the shortest path, and never much longer."""
    excess = []
    for seed in range(40):
        distance = random_distances(nodes, seed)
        shortest = min(length(distance, path) for path in itertools.permutations(range(nodes)))
        excess.append(length(distance, shortest_path(distance, LEDGER)) / shortest - 1)
    assert min(excess) > -1e-12
    assert np.mean(np.array(excess) < 1e-9) >= 0.95
    assert max(excess) < 0.05


@pytest.mark.parametrize("seed", range(5))
def test_no_reversal_shortens_a_path(seed):
    distance = random_distances(30, seed)
    path = shortest_path(distance, LEDGER)
    assert sorted(path) == list(range(30))
    for i, j in itertools.combinations(range(31), 2):
        changed = np.concatenate([path[:i], path[i:j][::-1], path[j:]])
        assert length(distance, changed) > length(distance, path) - 1e-9


@pytest.mark.parametrize("centres", [10, 45])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_order_along_a_half_circle_is_found(centres, seed):
    points, angle = half_circle(150, seed)
    assert same_up_to_reversal(path_order(points, centres, LEDGER), angle.argsort().argsort())


@pytest.mark.parametrize("n", [1, 2, 3, 5, 30])
def test_order_along_a_line_is_found(n):
    position = np.random.default_rng(n).normal(size=n)
    points = np.stack([3 * position, 1 - position], 1)
    assert same_up_to_reversal(path_order(points, 45, LEDGER), position.argsort().argsort())


@pytest.mark.parametrize("name", datasets.CURVES)
def test_codes_of_a_curve_are_a_permutation(name):
    x = draw(datasets.load(name), 0, 120, 1, 1).train.numpy()
    assert sorted(path_order(x, 45, LEDGER)) == list(range(120))


@pytest.mark.parametrize("name", ["figure8", "circle"])
def test_order_does_not_change_with_the_axes_or_the_origin(name):
    x = draw(datasets.load(name), 0, 120, 1, 1).train.numpy()
    turn = np.array([[math.cos(2.0), -math.sin(2.0)], [math.sin(2.0), math.cos(2.0)]])
    assert same_up_to_reversal(path_order(x @ turn + [4, -7], 45, LEDGER), path_order(x, 45, LEDGER))


def test_permuting_the_data_permutes_their_codes():
    points, _ = half_circle(150)
    shuffle = np.random.default_rng(1).permutation(150)
    assert same_up_to_reversal(path_order(points[shuffle], 45, LEDGER), path_order(points, 45, LEDGER)[shuffle])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_order_follows_a_noisy_half_circle(seed):
    """Spearman's correlation of code and angle, under noise of a tenth of the radius."""
    points, angle = half_circle(300, seed)
    x = points + 0.1 * np.random.default_rng(seed).normal(size=points.shape)
    order = path_order(atoms_of(x), 45, LEDGER)
    assert abs(np.corrcoef(order, angle.argsort().argsort())[0, 1]) > 0.98


def test_equal_data_count_once():
    """Their atoms differ by rounding, which k-means must not be asked to tell apart."""
    x = draw(datasets.load("circle"), 0, 10, 1, 1).train.repeat(6, 1)
    order = path_order(atoms_of(x), 45, LEDGER).reshape(6, 10)
    assert sorted(order.ravel()) == list(range(60))
    assert (np.ptp(order, axis=0) == 5).all()


def test_positions_are_arc_lengths_of_the_nearest_points_of_the_extended_path():
    path = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 3.0]])
    points = np.array([[-1.5, 1.0], [0.5, 0.2], [2.0, -1.0], [1.9, 1.0], [2.5, 4.0], [3.0, 0.0]])
    np.testing.assert_allclose(_position_along(points, path), [-1.5, 0.5, 2.0, 3.0, 6.0, 2.0])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("latent", [1, 2])
def test_transport_is_the_best_of_all_permutations(n, latent):
    rng = np.random.default_rng(n)
    layout, codes = rng.normal(3, 5, size=(n, latent)), rng.normal(size=(n, latent))
    spread = layout.std(0)
    standard = (layout - layout.mean(0)) / np.where(spread > 0, spread, 1)
    costs = [((standard - codes[list(p)]) ** 2).sum() for p in itertools.permutations(range(n))]
    order = transport(layout, codes, LEDGER)
    assert ((standard - codes[order]) ** 2).sum() == pytest.approx(min(costs))


def test_transport_ignores_the_units_of_a_layout():
    rng = np.random.default_rng(0)
    layout, codes = rng.normal(size=(50, 2)), LatentGrid.equal(50, 2).codes.numpy()
    assert np.array_equal(transport(layout, codes, LEDGER), transport(layout * [3, 0.1] + 9, codes, LEDGER))


def test_transport_of_the_codes_to_themselves_moves_none():
    codes = LatentGrid.equal(64, 2).codes.numpy()
    shuffle = np.random.default_rng(0).permutation(64)
    assert np.array_equal(transport(codes[shuffle], codes, LEDGER), shuffle)


def test_a_constant_coordinate_of_a_layout_is_no_obstacle():
    layout = np.stack([np.arange(6.0), np.ones(6)], 1)
    assert sorted(transport(layout, LatentGrid.equal(6, 2).codes.numpy(), LEDGER)) == list(range(6))


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_assignment_is_the_best_of_all_permutations(n):
    cost = np.random.default_rng(n).uniform(size=(n, n))
    order = assignment(cost, LEDGER)
    assert sorted(order) == list(range(n))
    least = min(cost[range(n), list(p)].sum() for p in itertools.permutations(range(n)))
    assert cost[range(n), order].sum() == pytest.approx(least)


def placed(atoms, latent_dim, only="best"):
    """All candidates: orders by name."""
    codes = LatentGrid.equal(len(atoms), latent_dim).codes.numpy()
    return dict(candidates(atoms, lambda: atoms, codes, 0.01, 45, LEDGER, only))


@pytest.mark.parametrize(
    ("name", "n", "expected"),
    [
        ("circle", 100, {"path"}),
        ("s_curve", 100, {"isomap-8", "sheet-6", "angles-8", "angles-12", "tsne-25"}),
        ("s_curve", 9, {"isomap-8", "sheet-6"}),
        ("s_curve", 8, {"principal axes"}),
        ("s_curve", 1, {"principal axes"}),
        ("pinwheel", 5, {"transport", "principal axes"}),
        ("pinwheel", 12, {"transport", "isomap-8", "sheet-6"}),
    ],
)
def test_candidates_suit_the_dimensions_and_the_number_of_data(name, n, expected):
    problem = datasets.load(name)
    x = draw(problem, 0, n, 1, 1).train.numpy()
    found = placed(x, problem.latent_dim)
    assert set(found) == expected
    assert all(sorted(order) == list(range(n)) for order in found.values())


@pytest.mark.parametrize("name", ["circle", "pinwheel", "s_curve"])
def test_nearest_atoms_are_placed_near_each_other(name):
    problem = datasets.load(name)
    atoms = draw(problem, 0, 200, 1, 1).train.numpy()
    apart = np.linalg.norm(atoms[:, None] - atoms, axis=-1) + np.diag(np.full(200, np.inf))
    codes = LatentGrid.equal(200, problem.latent_dim).codes.numpy()
    for found, order in placed(atoms, problem.latent_dim).items():
        assert sorted(order) == list(range(200)), found
        of_atom = codes[order]
        of_nearest = np.square(of_atom - of_atom[apart.argmin(1)]).sum(1).mean()
        assert of_nearest < 0.15 * 2 * codes.var(0).sum(), found


def test_one_placement_may_be_asked_for_by_its_name_or_how_it_begins():
    x = draw(datasets.load("pinwheel"), 0, 60, 1, 1).train.numpy()
    every = placed(x, 2)
    for asked, expected in (("transport", ["transport"]), ("angles", ["angles-8", "angles-12"]), ("tsne", ["tsne-15"])):
        found = placed(x, 2, asked)
        assert list(found) == expected
        assert all(np.array_equal(order, every[name]) for name, order in found.items())
    assert list(placed(x, 2, "first")) == ["transport"]
    assert list(placed(x, 2, "isomap")) == ["isomap-8"]


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_a_random_placement_knows_nothing_of_the_data(latent_dim):
    x = draw(datasets.load("circle"), 0, 60, 1, 1).train.numpy()
    order = placed(x, latent_dim, "random")["random"]
    assert sorted(order) == list(range(60))
    assert np.array_equal(order, placed(x[::-1].copy(), latent_dim, "random")["random"])


def test_other_placements_and_other_latent_dimensions_are_refused():
    x = draw(datasets.load("circle"), 0, 30, 1, 1).train.numpy()
    with pytest.raises(ValueError, match="must be best, first, random, truth, path, got 'transport'"):
        placed(x, 1, "transport")
    with pytest.raises(ValueError, match="1 or 2 latent dimensions, got 3"):
        placed(x, 3)

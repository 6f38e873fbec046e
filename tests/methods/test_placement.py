"""Placement: paths and assignments against brute force, and what they must not depend on."""

import itertools
import math

import numpy as np
import pytest
import torch

import datasets
from datasets.base import draw
from methods.base import FreeLedger
from methods.cells import PriorCells
from methods.mapa.index import denoise
from methods.mapa.placement import _position_along, candidates, path_order, shortest_path, transport

LEDGER = FreeLedger()


def length(distance, path):
    path = np.asarray(path)
    return distance[path[:-1], path[1:]].sum()


def random_distances(nodes, seed):
    points = np.random.default_rng(seed).normal(size=(nodes, 2))
    return np.linalg.norm(points[:, None] - points, axis=-1)


def same_up_to_reversal(first, second):
    return np.array_equal(first, second) or np.array_equal(first, len(second) - 1 - second)


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
    order = path_order(denoise(torch.tensor(x), 0.01, 1).numpy(), 45, LEDGER)
    assert abs(np.corrcoef(order, angle.argsort().argsort())[0, 1]) > 0.98


def test_equal_data_count_once():
    """Their atoms differ by rounding, which k-means must not be asked to tell apart."""
    x = draw(datasets.load("circle"), 0, 10, 1, 1).train.repeat(6, 1)
    order = path_order(denoise(x, 0.01, 1).numpy(), 45, LEDGER).reshape(6, 10)
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
    layout, codes = rng.normal(size=(50, 2)), PriorCells.equal(50, 2).codes.numpy()
    assert np.array_equal(transport(layout, codes, LEDGER), transport(layout * [3, 0.1] + 9, codes, LEDGER))


def test_transport_of_the_codes_to_themselves_moves_none():
    codes = PriorCells.equal(64, 2).codes.numpy()
    shuffle = np.random.default_rng(0).permutation(64)
    assert np.array_equal(transport(codes[shuffle], codes, LEDGER), shuffle)


def test_a_constant_coordinate_of_a_layout_is_no_obstacle():
    layout = np.stack([np.arange(6.0), np.ones(6)], 1)
    assert sorted(transport(layout, PriorCells.equal(6, 2).codes.numpy(), LEDGER)) == list(range(6))


@pytest.mark.parametrize(
    ("name", "n", "expected"),
    [
        ("circle", 100, {"path"}),
        ("s_curve", 100, {"isomap-8", "isomap-15", "tsne-25"}),
        ("s_curve", 9, {"isomap-8"}),
        ("pinwheel", 5, {"transport"}),
        ("pinwheel", 12, {"transport", "isomap-8"}),
    ],
)
def test_candidates_suit_the_dimensions_and_the_number_of_data(name, n, expected):
    problem = datasets.load(name)
    x = draw(problem, 0, n, 1, 1).train.numpy()
    found = dict(candidates(x, PriorCells.equal(n, problem.latent_dim).codes.numpy(), 45, LEDGER))
    assert set(found) == expected
    assert all(sorted(order) == list(range(n)) for order in found.values())


def test_layouts_of_a_flat_sheet_keep_neighbours_together():
    """A sheet in space is as good as the plane: neighbours get codes much nearer than chance would."""
    rng = np.random.default_rng(0)
    sheet = rng.normal(size=(150, 2)) @ rng.normal(size=(2, 3))
    codes = PriorCells.equal(150, 2).codes.numpy()
    nearest = np.linalg.norm(sheet[:, None] - sheet, axis=-1) + 1e9 * np.eye(150)
    for name, order in candidates(sheet, codes, 45, LEDGER):
        placed = codes[order]
        apart = np.linalg.norm(placed - placed[nearest.argmin(1)], axis=1)
        assert np.median(apart) < 0.5, name

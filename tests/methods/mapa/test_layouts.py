"""Layouts: neighbours stay together, layers are told apart, closed surfaces are cut open, and nothing breaks them."""

import math

import numpy as np
import pytest
import torch

import datasets
from datasets.base import draw
from methods.common.latent_grid import LatentGrid
from methods.contract.method import NullLedger
from methods.mapa.deconvolution import estimate
from methods.mapa.layouts import LEAST, flattened, layout_flops, layouts
from methods.mapa.placement import transport

LEDGER = NullLedger()
NOISE = 0.01


def drawn(name, n, seed=0):
    split = draw(datasets.load(name), seed, n, 1, 1)
    return split.train.numpy(), split.codes.numpy()


def agreement(angle, other):
    """How far one angle follows another, or turns against it, whatever lies between them: from 0 to 1."""
    return max(abs(np.exp(1j * (angle - sign * other)).mean()) for sign in (1, -1))


def of_points(x, noise, ledger):
    """The layouts of points that are their own atoms."""
    return layouts(x, lambda: x, noise, ledger)


def as_angle(position):
    return 2 * math.pi * position.argsort().argsort() / len(position)


@pytest.fixture(scope="module")
def torus():
    x, codes = drawn("torus", 500)
    x = estimate(torch.from_numpy(x), NOISE, 6.0, 5, 1, LEDGER).atoms.numpy()
    return x, np.stack([as_angle(each) for each in codes.T], 1)


def test_both_angles_of_a_torus_are_found(torus):
    """The codes of a torus are two angles, and both ends of each meet."""
    x, codes = torus
    found = of_points(x, NOISE, LEDGER)["angles-12"]()
    agreed = [[agreement(as_angle(mine), true) for true in codes.T] for mine in found.T]
    assert agreed[0][0] > 0.9
    assert agreed[1][1] > 0.7
    assert max(agreed[0][1], agreed[1][0]) < 0.3


def test_no_layout_that_sees_distances_only_finds_them(torus):
    x, codes = torus
    for name in ("isomap-8", "tsne-60"):
        found = of_points(x, NOISE, LEDGER)[name]()
        assert max(agreement(as_angle(mine), codes[:, 1]) for mine in found.T) < 0.7, name


def test_layers_of_a_roll_are_told_apart():
    """Between layers, which are 1.05 apart, distances count four times; along the sheet they stay as they are."""
    x, codes = drawn("swiss_roll", 500)
    sheet = flattened(x, NOISE, LEDGER, 8)
    turn = 1.5 * math.pi * (1 + 2 * (codes[:, 0].argsort().argsort() + 0.5) / len(codes))
    apart = np.abs(turn[:, None] - turn)
    plain = np.linalg.norm(sheet.points[:, None] - sheet.points, axis=-1)
    close = (plain < 1.5) & (plain > 0)
    ratio = sheet.distance[close] / plain[close]
    layers = apart[close] > 4
    assert np.median(ratio[layers]) > 1.8
    assert np.median(ratio[~layers]) < 1.1


def test_atoms_move_to_a_plane_and_along_it_nowhere():
    rng = np.random.default_rng(0)
    flat = np.pad(rng.uniform(0, 5, size=(300, 2)), ((0, 0), (0, 1)))
    noisy = flat + rng.normal(size=(300, 3)) * [0, 0, 0.05]
    sheet = flattened(noisy, 0.05**2, LEDGER, 8)
    assert sheet.points[:, 2].std() < 0.5 * noisy[:, 2].std()
    assert np.abs(sheet.points[:, :2] - flat[:, :2]).mean() < 0.05
    assert np.abs(sheet.planes[:, :, 2]).mean() < 0.2


def test_points_of_the_plane_have_their_own_distances():
    x = np.random.default_rng(0).normal(size=(60, 2))
    sheet = flattened(x, NOISE, LEDGER, 8)
    np.testing.assert_allclose(sheet.points, x, atol=1e-9)
    np.testing.assert_allclose(sheet.distance, np.linalg.norm(x[:, None] - x, axis=-1), atol=1e-6)


def test_layouts_of_a_flat_sheet_keep_neighbours_together():
    """A sheet in space is as good as the plane: neighbours get codes much nearer than chance would."""
    rng = np.random.default_rng(0)
    sheet = rng.normal(size=(150, 2)) @ rng.normal(size=(2, 3))
    codes = LatentGrid.equal(150, 2).codes.numpy()
    nearest = np.linalg.norm(sheet[:, None] - sheet, axis=-1) + 1e9 * np.eye(150)
    for name, make in of_points(sheet, NOISE, LEDGER).items():
        order = transport(make(), codes, LEDGER)
        apart = np.linalg.norm(codes[order] - codes[order][nearest.argmin(1)], axis=1)
        assert np.median(apart) < 0.5, name


def test_layouts_leave_numpys_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for make in of_points(drawn("s_curve", 60)[0], NOISE, LEDGER).values():
        make()
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def hard(kind, n):
    rng = np.random.default_rng(0)
    return {
        "all the same": np.zeros((n, 3)),
        "on a line": np.outer(np.arange(n), [1.0, 2.0, 3.0]),
        "many copies": np.repeat(rng.normal(size=(12, 3)), n // 12 + 1, 0)[:n],
        "far clusters": rng.normal(size=(n, 3)) + 1e6 * (np.arange(n) % 3)[:, None],
        "many dimensions": rng.normal(size=(n, 40)),
    }[kind]


@pytest.mark.parametrize("n", [LEAST - 5, LEAST + 1, 60])
@pytest.mark.parametrize("kind", ["all the same", "on a line", "many copies", "far clusters", "many dimensions"])
def test_a_layout_of_hard_data_is_finite(kind, n):
    for name, make in of_points(hard(kind, n), NOISE, LEDGER).items():
        found = make()
        assert found.shape == (n, 2), name
        assert np.isfinite(found).all(), name


class Charges(NullLedger):
    """A ledger that keeps every charge."""

    def __init__(self):
        self.made = []

    def charge(self, name, flops):
        self.made.append((name, flops))


def test_tangent_planes_are_charged_once_and_every_layout_by_its_formula():
    ledger = Charges()
    makers = of_points(drawn("torus", 40)[0], NOISE, ledger)
    for name in ("sheet-6", "angles-8"):
        makers[name]()
    planes = 4 * 40 * (40 * (9 * 3 + math.log2(40)) + 4 * 64 * 3 + 8 * 8 * 9 + 9 * 27)
    assert dict(ledger.made) == {
        "distinct": pytest.approx(120 * (math.log2(40) + 6)),
        "tangent planes": pytest.approx(planes),
        "layout sheet-6": layout_flops("sheet-6", 40, 3, 2),
        "layout angles-8": pytest.approx(8 / 3 * 40**3 + 1600 * (100 + math.log2(40))),
    }
    assert len(ledger.made) == 4

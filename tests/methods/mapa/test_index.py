"""The index posterior: Bayes' rule by other means, and what it must not depend on."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import datasets
from datasets.base import draw
from methods.contract.method import NullLedger
from methods.mapa import index
from methods.mapa.deconvolution import estimate
from methods.mapa.index import Mixture, log_index_posterior

NOISE = 0.01


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def a_mixture(size=30, dim=3):
    """Atoms of uneven weight and variance."""
    return Mixture(normal(size, dim), normal(size, seed=1), 0.1 + normal(size, seed=2).square())


def index_of(train, noise=NOISE):
    return log_index_posterior(estimate(train, noise, 6.0, 5, 1, NullLedger()), train)


@pytest.fixture
def split():
    return draw(datasets.load("figure8"), 0, 80, 1, 40)


@pytest.mark.parametrize("dim", [1, 3, 40])
def test_posterior_of_atoms_is_bayes_rule(dim):
    mixture, x = a_mixture(dim=dim), normal(20, dim, seed=3)
    components = Independent(Normal(mixture.atoms, mixture.variance.sqrt()[:, None]), 1)
    joint = components.log_prob(x[:, None]) + torch.log_softmax(mixture.log_weight, 0)
    evidence = MixtureSameFamily(Categorical(logits=mixture.log_weight), components).log_prob(x)
    torch.testing.assert_close(mixture.log_posterior(x), joint - evidence[:, None])


def test_joint_of_some_atoms_is_that_of_all_at_their_places():
    mixture, x = a_mixture(), normal(20, 3, seed=3)
    squared = (x[:, None] - mixture.atoms).square().sum(-1)
    among = torch.stack([torch.randperm(30, generator=torch.Generator().manual_seed(k))[:7] for k in range(20)])
    expected = mixture.log_joint(squared).gather(1, among)
    torch.testing.assert_close(mixture.log_joint(squared.gather(1, among), among), expected)


def test_index_posterior_is_the_double_sum_over_atoms_and_data():
    """By plain loops over Python's floats."""
    train, mixture, x = normal(5, 2), a_mixture(4, 2), normal(3, 2, seed=4)

    def of_atoms(point):
        joint = []
        for atom, log_weight, variance in zip(
            mixture.atoms.tolist(), mixture.log_weight.tolist(), mixture.variance.tolist(), strict=True
        ):
            squared = sum((a - b) ** 2 for a, b in zip(point, atom, strict=True))
            joint.append(math.exp(log_weight) / variance ** (2 / 2) * math.exp(-squared / (2 * variance)))
        return [each / sum(joint) for each in joint]

    of_train = [of_atoms(point) for point in train.tolist()]
    found = log_index_posterior(mixture, train)(x).exp()
    for row, point in zip(found.tolist(), x.tolist(), strict=True):
        of_x = of_atoms(point)
        for i, value in enumerate(row):
            expected = sum(of_x[k] * of_train[i][k] / sum(each[k] for each in of_train) for k in range(4))
            assert value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("noise", [1e-6, 0.01, 1.0, 1e6])
@pytest.mark.parametrize("name", ["figure8", "s_curve"])
def test_rows_sum_to_one_also_for_data_far_away(name, noise):
    split = draw(datasets.load(name), 0, 80, 1, 40)
    mixture = estimate(split.train, noise, 6.0, 5, 1, NullLedger())
    x = torch.cat([split.train, split.test, 3 * split.test, split.test + 50, -1e6 * split.test])
    for log_p in (mixture.log_posterior(x), log_index_posterior(mixture, split.train)(x)):
        assert (log_p.exp().sum(1) - 1).abs().max() < 1e-12


def test_single_precision_data_are_taken_in_double(split):
    log_index = index_of(split.train)
    assert log_index(split.test.float()).dtype == torch.float64
    assert torch.equal(log_index(split.test.float()), log_index(split.test.float().double()))


def test_permuting_the_training_data_permutes_the_columns(split):
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    shuffled = index_of(split.train[order])(split.test).exp()
    torch.testing.assert_close(shuffled, index_of(split.train)(split.test).exp()[:, order])


def test_turning_shifting_or_scaling_space_changes_nothing(split):
    turn = torch.linalg.qr(normal(2, 2)).Q

    def moved(x):
        return 7 * x @ turn + torch.tensor([5.0, -3.0])

    found = index_of(moved(split.train), 49 * NOISE)(moved(split.test)).exp()
    torch.testing.assert_close(found, index_of(split.train)(split.test).exp(), rtol=1e-6, atol=1e-12)


def test_equal_data_share_their_probability(split):
    """Twice each datum, and each copy has half of what one has of the same mixture."""
    mixture = estimate(split.train, NOISE, 6.0, 5, 1, NullLedger())
    once = log_index_posterior(mixture, split.train)(split.test).exp()
    twice = log_index_posterior(mixture, split.train.repeat(2, 1))(split.test).exp()
    torch.testing.assert_close(twice, once.repeat(1, 2) / 2)


def test_training_points_taken_in_parts_give_the_same(split, monkeypatch):
    """A million points times two thousand atoms would not fit into memory at once."""
    mixture, rows = estimate(split.train, NOISE, 6.0, 5, 1, NullLedger()), []
    plain = Mixture.log_posterior
    monkeypatch.setattr(Mixture, "log_posterior", lambda self, x: rows.append(len(x)) or plain(self, x))
    whole = log_index_posterior(mixture, split.train)(split.test[:5])
    assert max(rows) == len(split.train)
    rows.clear()
    monkeypatch.setattr(index, "ENTRIES_AT_ONCE", 7 * len(mixture.atoms))
    in_parts = log_index_posterior(mixture, split.train)
    torch.testing.assert_close(in_parts(split.test[:5]), whole)
    torch.testing.assert_close(in_parts(split.test[:5]), whole)
    assert max(rows) == 7

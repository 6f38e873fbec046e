"""Observations without a true model: parts of one permutation that have nothing in common."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from datasets.base import Observations, draw
from datasets.digits import digits

DIGITS = digits()


def rows(x):
    return {tuple(row) for row in x.tolist()}


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ((500, 500, 2000), (500, 500, 797)),
        ((500, 500, 300), (500, 500, 300)),
        ((1000, 1000, 2000), (1000, 398, 399)),
        ((1398, 1398, 2000), (1398, 199, 200)),
        ((32, 32, 1), (32, 32, 1)),
        ((500, 500, 0), (500, 500, 0)),
    ],
)
def test_the_parts_are_disjoint_and_of_the_sizes_stated(asked, given):
    split = draw(DIGITS, 3, *asked)
    parts = (split.train, split.validation, split.test)
    assert tuple(map(len, parts)) == given
    assert len(set().union(*map(rows, parts))) == sum(given)
    assert set().union(*map(rows, parts)) <= rows(DIGITS.data)
    assert split.codes is None


def test_all_rows_differ_so_that_a_row_tells_where_it_is_from():
    assert len(rows(DIGITS.data)) == 1797


@pytest.mark.parametrize("train", [1400, 1797, 3000])
def test_too_small_a_test_set_is_refused(train):
    with pytest.raises(ValueError, match=rf"digits has 1797 points: {train} training points leave .* at least 200"):
        draw(DIGITS, 0, train, train, 2000)


def test_same_seed_same_parts_and_another_seed_others():
    first, again, other = (draw(DIGITS, seed, 500, 500, 2000) for seed in (1, 1, 2))
    assert torch.equal(first.train, again.train)
    assert torch.equal(first.test, again.test)
    assert not torch.equal(first.train, other.train)
    common = len(rows(first.train) & rows(other.train))
    assert abs(common - 500 * 500 / 1797) < 4 * (500 * 500 / 1797) ** 0.5


def test_more_training_data_add_to_those_before_and_leave_the_test_set():
    small, large = draw(DIGITS, 1, 100, 100, 300), draw(DIGITS, 1, 700, 100, 300)
    assert torch.equal(large.train[:100], small.train)
    assert torch.equal(large.test, small.test)


def test_the_test_set_asked_for_changes_no_other():
    with_test, without = draw(DIGITS, 1, 500, 500, 2000), draw(DIGITS, 1, 500, 500, 0)
    assert torch.equal(with_test.train, without.train)
    assert torch.equal(with_test.validation, without.validation)


def test_pixels_are_counts_and_noise_that_rounds_away():
    counts = load_digits().data
    values = 17 * DIGITS.data.numpy()
    assert (np.floor(values) == counts).all()
    noise = values - counts
    assert abs(noise.mean() - 0.5) < 4 / (12 * noise.size) ** 0.5
    assert abs(noise.var() - 1 / 12) < 4 * (1 / 180 / noise.size) ** 0.5
    assert DIGITS.data.min() >= 0
    assert DIGITS.data.max() < 1
    assert torch.equal(digits().data, DIGITS.data)


def test_the_latent_dimension_is_the_users_choice_and_changes_no_data():
    assert isinstance(DIGITS, Observations)
    assert (DIGITS.latent_dim, DIGITS.data_dim) == (8, 64)
    assert digits(3).latent_dim == 3
    assert torch.equal(draw(digits(3), 0, 500, 500, 9).test, draw(DIGITS, 0, 500, 500, 9).test)
    with pytest.raises(ValueError, match="latent_dim 1 to 32, got 33"):
        digits(33)

"""The posteriors that are kept to look at: of the index and of the signal."""

import torch
from torch.distributions import Normal

from bench.metrics import Evaluator, TrueModel, posterior_plots
from datasets import load
from datasets.base import draw
from datasets.linear import linear_gaussian
from methods.common.latent_grid import exact_posterior, index_without_codes
from methods.common.posteriors import Prior
from methods.contract.method import Fitted

N = 80


def log_index_posterior(x, atoms, variance):
    return torch.log_softmax(-(x[:, None] - atoms).square().sum(-1) / (2 * variance), 1)


def rows_of(name="figure8", log_index="doubled", n=N):
    problem = load(name)
    split = draw(problem, 0, n, 1, 1)
    known = {"doubled": lambda x: log_index_posterior(x, split.train, 2 * problem.noise_variance), "none": None}
    fitted = Fitted(TrueModel(problem), Prior(1), known[log_index])
    exact = exact_posterior(TrueModel(problem), 1)
    found = posterior_plots.index_posteriors("mapa", fitted, problem, exact, split.train, split.codes)
    return found, problem, split, exact


def test_the_data_asked_about_are_spread_over_the_true_codes():
    found, _, split, _ = rows_of()
    points = list(dict.fromkeys(row[1] for row in found))
    ranks = [int((split.codes[:, 0] < split.codes[point, 0]).sum()) for point in points]
    assert ranks == [10, 30, 50, 70]


def test_each_row_is_the_probability_of_its_model_at_its_datum():
    found, problem, split, exact = rows_of()
    models = {
        "truth": lambda x: log_index_posterior(x, problem.decoder(split.codes), problem.noise_variance),
        "floor": index_without_codes(exact, split.train),
        "mapa": lambda x: log_index_posterior(x, split.train, 2 * problem.noise_variance),
    }
    tables = {name: model(split.train).exp() for name, model in models.items()}
    assert {row[0] for row in found} == set(models)
    for name, point, index, code, x, probability in found:
        torch.testing.assert_close(probability, float(tables[name][point, index]), rtol=1e-9, atol=1e-15)
        assert code == float(split.codes[index, 0])
        assert x == split.train[index].tolist()


def test_only_what_all_three_take_for_negligible_is_left_out():
    found, problem, split, exact = rows_of()
    truth = log_index_posterior(split.train, problem.decoder(split.codes), problem.noise_variance).exp()
    floor = index_without_codes(exact, split.train)(split.train).exp()
    mapa = log_index_posterior(split.train, split.train, 2 * problem.noise_variance).exp()
    greatest = torch.stack([truth, floor, mapa]).amax(0)
    points = {row[1] for row in found}
    expected = {(point, i) for point in points for i in range(N) if greatest[point, i] > 1e-6 or i == point}
    assert 4 < len(expected) < 4 * N
    for name in ("truth", "floor", "mapa"):
        assert {row[1:3] for row in found if row[0] == name} == expected


def test_few_data_are_each_asked_about_once():
    assert {row[1] for row in rows_of(n=2)[0]} == {0, 1}


def test_nothing_is_kept_of_a_method_without_an_index_posterior_nor_of_too_many_data(monkeypatch):
    assert rows_of(log_index="none")[0] == []
    monkeypatch.setattr(posterior_plots, "MOST_POINTS", N)
    assert rows_of()[0] != []
    assert rows_of(n=N + 1)[0] == []


class Shifted:
    """The true model, moved in data space."""

    def __init__(self, problem, by):
        self.problem, self.by = problem, by

    def decode(self, z):
        return self.problem.decoder(z.double()) + self.by

    def variance(self):
        return self.problem.noise_variance


def signals_of(problem, split, name, model=None, posterior=None):
    evaluator = Evaluator(problem, split, 0)
    fitted = Fitted(model or TrueModel(problem), posterior or evaluator.true_posterior)
    return evaluator.signal_posteriors(name, fitted)


def by_name_and_point(found):
    """(64, D) signals of each name and point, whose draws are in order."""
    tables = {}
    for name, point, draw_, _, signal in found:
        table = tables.setdefault((name, point), [])
        assert draw_ == len(table)
        table.append(signal)
    return {key: torch.tensor(table, dtype=torch.float64) for key, table in tables.items()}


def test_true_signals_have_the_moments_and_quantiles_of_the_closed_form():
    """But for the boxes that the true posterior is held on, which are half a standard deviation of the noise wide."""
    problem = linear_gaussian(1)
    split = draw(problem, 0, 4, 1, 40)
    offset = problem.decoder(torch.zeros(1, 1, dtype=torch.float64))[0]
    slope = problem.decoder(torch.ones(1, 1, dtype=torch.float64))[0] - offset
    precision = 1 + slope.square().sum() / problem.noise_variance
    tables = by_name_and_point(signals_of(problem, split, "oracle"))
    levels = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    for (_, point), signal in tables.items():
        z = ((signal - offset) / slope).mean(1)
        mean = (split.test[point] - offset) @ slope / problem.noise_variance / precision
        exact = Normal(mean, precision.rsqrt())
        torch.testing.assert_close(z.sort().values, exact.icdf(levels), atol=0.05 * float(exact.stddev), rtol=0)
        torch.testing.assert_close(signal.mean(0), offset + slope * mean, atol=2e-3, rtol=0)
        variance = slope.square() / precision
        torch.testing.assert_close(signal.var(0, correction=0), variance, rtol=0.05, atol=0)


def test_the_signals_of_the_oracle_are_the_truths_and_of_another_decoder_its_own():
    problem = load("s_curve")
    split = draw(problem, 0, 4, 1, 24)
    oracle = by_name_and_point(signals_of(problem, split, "oracle"))
    shifted = by_name_and_point(signals_of(problem, split, "vae", Shifted(problem, 3.0)))
    points = {point for _, point in oracle}
    assert len(oracle) == 2 * len(points) == 8
    for point in points:
        assert torch.equal(oracle["oracle", point], oracle["truth", point])
        assert torch.equal(shifted["truth", point], oracle["truth", point])
        torch.testing.assert_close(shifted["vae", point], oracle["truth", point] + 3.0)
        assert oracle["truth", point].shape == (64, 3)


def test_the_x_are_the_same_for_all_methods_and_spread_over_the_first_coordinate():
    problem = load("figure8")
    split = draw(problem, 0, 4, 1, 40)
    found = [signals_of(problem, split, "a"), signals_of(problem, split, "b", Shifted(problem, 1.0), Prior(1))]
    asked = [list(dict.fromkeys((row[1], tuple(row[3])) for row in rows if row[0] in "ab")) for rows in found]
    assert asked[0] == asked[1]
    assert [tuple(split.test[point].tolist()) for point, _ in asked[0]] == [x for _, x in asked[0]]
    assert [int((split.test[:, 0] < x[0]).sum()) for _, x in asked[0]] == [5, 15, 25, 35]


def test_no_signals_are_kept_that_cannot_be_looked_at_or_have_no_true_posterior():
    for problem in (linear_gaussian(1, 4), linear_gaussian(1, 1), linear_gaussian(3, 3)):
        split = draw(problem, 0, 4, 1, 6)
        assert signals_of(problem, split, "a", posterior=Prior(problem.latent_dim)) == []

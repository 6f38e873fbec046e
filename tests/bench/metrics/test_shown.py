"""The index posteriors that are kept to look at."""

import torch

from bench.metrics import TrueModel, shown
from datasets import load
from datasets.base import draw
from methods.base import Fitted
from methods.cells import exact_posterior
from methods.posteriors import Prior
from methods.references import index_without_codes

N = 80


def log_index_posterior(x, atoms, variance):
    return torch.log_softmax(-(x[:, None] - atoms).square().sum(-1) / (2 * variance), 1)


def rows_of(name="figure8", log_index="doubled", n=N):
    problem = load(name)
    split = draw(problem, 0, n, 1, 1)
    known = {"doubled": lambda x: log_index_posterior(x, split.train, 2 * problem.noise), "none": None}
    fitted = Fitted(TrueModel(problem), Prior(1), known[log_index])
    exact = exact_posterior(TrueModel(problem), 1)
    found = shown.index_posteriors("mapa", fitted, problem, exact, split.train, split.codes)
    return found, problem, split, exact


def test_the_data_asked_about_are_spread_over_the_true_codes():
    found, _, split, _ = rows_of()
    points = list(dict.fromkeys(row[1] for row in found))
    ranks = [int((split.codes[:, 0] < split.codes[point, 0]).sum()) for point in points]
    assert ranks == [10, 30, 50, 70]


def test_each_row_is_the_probability_of_its_model_at_its_datum():
    found, problem, split, exact = rows_of()
    models = {
        "truth": lambda x: log_index_posterior(x, problem.decoder(split.codes), problem.noise),
        "floor": index_without_codes(exact, split.train),
        "mapa": lambda x: log_index_posterior(x, split.train, 2 * problem.noise),
    }
    tables = {name: model(split.train).exp() for name, model in models.items()}
    assert {row[0] for row in found} == set(models)
    for name, point, index, code, x, probability in found:
        torch.testing.assert_close(probability, float(tables[name][point, index]), rtol=1e-9, atol=1e-15)
        assert code == float(split.codes[index, 0])
        assert x == split.train[index].tolist()


def test_only_what_all_three_take_for_negligible_is_left_out():
    found, problem, split, exact = rows_of()
    truth = log_index_posterior(split.train, problem.decoder(split.codes), problem.noise).exp()
    floor = index_without_codes(exact, split.train)(split.train).exp()
    mapa = log_index_posterior(split.train, split.train, 2 * problem.noise).exp()
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
    monkeypatch.setattr(shown, "MOST_DATA", N)
    assert rows_of()[0] != []
    assert rows_of(n=N + 1)[0] == []

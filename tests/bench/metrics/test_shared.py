"""What runs share: found once, the same for all, and added by built-in methods alone."""

import pytest
import torch

from bench.metrics.likelihood import TrueModel, true_likelihood
from bench.metrics.samples import sample_quality
from bench.metrics.shared import Shared
from datasets import load
from datasets.base import draw
from datasets.linear import linear_gaussian


class Finds:
    """Counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self):
        self.asked += 1
        return {"value": torch.arange(3.0, dtype=torch.float64) / self.asked, "count": torch.tensor(7.0).double()}


def test_what_was_found_is_not_found_again(tmp_path):
    shared, find = Shared(str(tmp_path), adds=True), Finds()
    first, again = (shared.found("thing", b"of this", find) for _ in range(2))
    assert find.asked == 1
    assert first.keys() == again.keys() == {"value", "count"}
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize(("what", "of"), [("thing", b"of that"), ("other", b"of this")])
def test_what_depends_on_something_else_is_found_anew(tmp_path, what, of):
    shared, find = Shared(str(tmp_path), adds=True), Finds()
    shared.found("thing", b"of this", find)
    shared.found(what, of, find)
    assert find.asked == 2


def test_a_method_that_is_not_built_in_adds_nothing_but_is_scored_with_the_same(tmp_path):
    find = Finds()
    Shared(str(tmp_path), adds=False).found("thing", b"of this", find)
    assert not list(tmp_path.iterdir())
    kept = Shared(str(tmp_path), adds=True).found("thing", b"of this", find)
    assert torch.equal(Shared(str(tmp_path), adds=False).found("thing", b"of this", find)["value"], kept["value"])
    assert find.asked == 2


@pytest.mark.parametrize(
    "problem", [load("circle"), load("swiss_roll"), linear_gaussian(3)], ids=lambda each: each.name
)
def test_the_truth_and_the_floor_are_the_same_from_the_folder(tmp_path, problem):
    x, shared = draw(problem, 0, 1, 1, 20).test, Shared(str(tmp_path), adds=True)
    alone = true_likelihood(problem, x, 0), sample_quality(problem, TrueModel(problem), 0)
    for _ in range(2):
        truth, samples = true_likelihood(problem, x, 0, shared), sample_quality(problem, TrueModel(problem), 0, shared)
        assert torch.equal(truth.value, alone[0].value)
        assert torch.equal(truth.error, alone[0].error)
        assert truth.diagnostics == alone[0].diagnostics
        assert samples == alone[1]
    assert sorted(path.name.partition("-")[0] for path in tmp_path.iterdir()) == ["floor", "truth"]


def test_seeds_do_not_share(tmp_path):
    problem, shared = load("circle"), Shared(str(tmp_path), adds=True)
    first, other = (sample_quality(problem, TrueModel(problem), seed, shared)[1].value for seed in (0, 1))
    assert first != other

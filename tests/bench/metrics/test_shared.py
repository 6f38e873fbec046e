"""What runs share: computed once, told apart by everything it depends on, and added to by methods of the house only."""

import pytest
import torch

from bench.metrics import Evaluator, TrueModel
from bench.metrics.shared import Shared, _computed
from datasets import load
from datasets.base import draw
from methods.common.latent_grid import exact_posterior, index_without_codes
from methods.contract.method import Fitted


@pytest.fixture(autouse=True)
def nothing_remembered():
    _computed.cache_clear()


class Counted:
    """A computation that counts how often it is carried out."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return {"first": torch.full((2,), float(self.times)).double(), "khat_above_0.7": torch.tensor(0.25)}


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


X = torch.arange(6.0).double()


@pytest.mark.parametrize("kept", ["by this process", "in a folder"])
def test_the_same_is_computed_once_and_anything_else_anew(kept, tmp_path):
    shared, compute = Shared(str(tmp_path) if kept == "in a folder" else "", adds=True), Counted()
    first = shared.found("floor a 0", [X], compute)
    _computed.cache_clear() if kept == "in a folder" else None  # as in another process
    assert same(shared.found("floor a 0", [X.clone()], compute), first)
    assert compute.times == 1
    for what, of in [
        ("floor a 1", [X]),
        ("floor b 0", [X]),
        ("floor a 0", [X + 1e-12]),
        ("floor a 0", [X.view(2, 3)]),
        ("floor a 0", [X[:3], X[3:]]),
    ]:
        before = compute.times
        assert not same(shared.found(what, of, compute), first)
        assert compute.times == before + 1


def test_a_run_that_only_reads_leaves_no_trace(tmp_path):
    Shared(str(tmp_path)).found("floor", [X], Counted())
    assert list(tmp_path.iterdir()) == []
    kept = Shared(str(tmp_path), adds=True).found("other floor", [X], Counted())
    unused = Counted()
    _computed.cache_clear()
    assert same(Shared(str(tmp_path)).found("other floor", [X], unused), kept)
    assert unused.times == 0
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["circle", "swiss_roll"])
def test_the_oracle_is_measured_alike_with_and_without_a_folder(name, tmp_path):
    """Values, errors and diagnostics: found by this run, found and kept, and read from what another run kept."""
    problem = load(name)
    model = TrueModel(problem)
    exact = exact_posterior(model, problem.latent_dim)

    def measured(shared):
        _computed.cache_clear()
        split = draw(problem, 0, 30, 1, 20)
        evaluator = Evaluator(problem, split, 0, shared=shared)
        fitted = Fitted(model, exact, index_without_codes(exact, split.train))
        return evaluator.evaluate_checkpoint(fitted) + evaluator.evaluate_final(fitted)

    alone, kept, read = (measured(shared) for shared in (Shared(), *[Shared(str(tmp_path), adds=True)] * 2))
    assert alone == kept == read
    found = {each.metric: each for each in read}
    assert found["test_ll"].diagnostics["numerical_error"] > 0
    assert {"index_kl_floor", "signal_w2", "sample_w2_floor"} <= found.keys()
    assert len(list(tmp_path.iterdir())) == 4

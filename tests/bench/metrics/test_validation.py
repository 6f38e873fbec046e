"""Scores on validation data: nothing else is scored, the test set is never drawn, and the rest stays the same."""

import torch

from bench.fit import block
from bench.fit.runner import run_one
from bench.registry.registry import registry
from datasets import base
from datasets.base import draw


def test_only_the_end_is_scored_and_nothing_else(run_spec):
    result = run_one(run_spec(method="untrained", scored_on="validation"))
    assert [(row.metric, row.checkpoint) for row in result.rows] == [("validation_ll", 0)]
    assert (result.densities, result.posteriors, result.signals, result.references) == ([], [], [], [])


def guard(monkeypatch):
    """Make every draw of a test set raise."""
    plain = base.stream

    def stream(problem, seed, name):
        if name == "test":
            raise AssertionError("the test set was drawn")
        return plain(problem, seed, name)

    monkeypatch.setattr(base, "stream", stream)


def test_the_test_set_is_never_drawn(run_spec, monkeypatch):
    guard(monkeypatch)
    assert run_one(run_spec(method="untrained", scored_on="validation")).status == "done"


def test_planted_a_draw_of_the_test_set_is_caught(run_spec, monkeypatch):
    guard(monkeypatch)
    monkeypatch.setattr(block, "draw", lambda source, seed, *_: draw(source, seed, 40, 40, 50))
    assert "the test set was drawn" in run_one(run_spec(method="untrained", scored_on="validation")).message


def test_without_a_test_set_the_rest_is_the_same():
    for dataset in ("circle", "torus"):
        problem = registry().make_problem(dataset, None)
        split, whole = draw(problem, 5, 30, 20, 0), draw(problem, 5, 30, 20, 10)
        assert torch.equal(split.train, whole.train)
        assert torch.equal(split.validation, whole.validation)
        assert torch.equal(split.codes, whole.codes)
        assert split.test.shape == (0, problem.data_dim)

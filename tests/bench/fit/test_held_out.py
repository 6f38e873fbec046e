"""A method's task holds no reference to the data that the method is scored on."""

import dataclasses

import pytest
import torch

from bench.check.reach import holds
from bench.fit.flop_counter import CountingLedger
from bench.fit.task import make_task
from bench.registry.registry import registry
from datasets.base import draw


@pytest.fixture(params=registry().methods)
def task_and_split(request, run_spec):
    """The task of a method, and the data that it was made from."""
    known, spec = registry(), run_spec(method=request.param)
    problem = known.make_problem(spec.dataset, None)
    split = draw(problem, spec.seed, spec.n_train, spec.n_train, spec.n_test)
    return make_task(known.make_method(spec.method), problem, split, spec, CountingLedger()), split


def test_a_task_holds_nothing_of_the_test_set(task_and_split):
    task, split = task_and_split
    assert holds(task, split.train)
    assert holds(task, split.validation)
    assert not holds(task, split.test)


def test_a_leak_would_be_found(task_and_split):
    task, split = task_and_split
    assert holds(dataclasses.replace(task, validation=torch.cat([task.validation, split.test[:1].float()])), split.test)
    task.ledger.charge = lambda *_: split.test
    assert holds(task, split.test)

"""What a method is handed leads nowhere to the data that it will be scored on."""

import dataclasses

import pytest
import torch

from bench.check.reach import holds
from bench.fit.runner import _ledger, make_task
from bench.registry.registry import registry
from datasets.base import draw


@pytest.fixture(params=registry().methods)
def handed(request, run_spec):
    """The task of a method, and the data that it was made from."""
    known, spec = registry(), run_spec(method=request.param)
    problem = known.make_problem(spec.dataset, None)
    split = draw(problem, spec.seed, spec.size, spec.validation_size, spec.test_size)
    return make_task(known.make_method(spec.method), problem, split, spec, _ledger()), split


def test_a_method_is_handed_nothing_of_the_test_set(handed):
    task, split = handed
    assert holds(task, split.train)
    assert holds(task, split.validation)
    assert not holds(task, split.test)


def test_a_leak_would_be_found(handed):
    task, split = handed
    assert holds(dataclasses.replace(task, validation=torch.cat([task.validation, split.test[:1].float()])), split.test)
    task.ledger.charge = lambda *_: split.test
    assert holds(task, split.test)

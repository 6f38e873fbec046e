"""What a method is handed leads nowhere to the data that it will be scored on."""

import dataclasses
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

import pytest
import torch

from bench.cell import _ledger, make_task
from bench.registry import registry
from datasets.base import draw


def tensors(root):
    """Every tensor to be reached from an object through attributes, containers, bound methods and closures."""
    pending, seen = [root], set()
    while pending:
        each = pending.pop()
        if id(each) in seen or isinstance(each, ModuleType | type | BuiltinFunctionType | str):
            continue
        seen.add(id(each))
        if isinstance(each, torch.Tensor):
            yield each
        elif isinstance(each, dict):
            pending += each.values()
        elif isinstance(each, list | tuple | set | frozenset):
            pending += each
        elif isinstance(each, FunctionType):
            pending += [cell.cell_contents for cell in each.__closure__ or ()]
        elif isinstance(each, MethodType):
            pending += [each.__self__, each.__func__]
        else:
            pending += getattr(each, "__dict__", {}).values()


def holds(task, points):
    """Whether a tensor within reach of the task has one of the points (n, D) among its rows."""
    within = [t.detach().double() for t in tensors(task) if t.dim() == 2 and t.shape[1] == points.shape[1]]
    return any(bool((torch.cdist(points, rows) < 1e-6).any()) for rows in within)


@pytest.fixture(params=registry().methods)
def handed(request, cell_spec):
    """The task of a method, and the data that it was made from."""
    known, spec = registry(), cell_spec(method=request.param)
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

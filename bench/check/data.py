"""Duties on data: what a method must not see, and what it does with data and hyperparameters that will not do."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.check.errors import FailedError
from bench.check.fingerprint import all_finite, count, differing, fingerprint
from bench.check.method_under_test import SIZE, TEST_SIZE, Subject
from bench.check.probes import Calls
from bench.check.reach import holds
from bench.check.short_fit import Limit, Trial
from bench.common.errors import UsageError
from bench.registry.registry import describe
from datasets.base import Split, draw

BRIEF = Limit(yields=20, flops=5e7, seconds=1.0)
VALUES = (-1, 0, math.nan)


def held_out(subject: Subject) -> str:
    """Nothing handed to a method leads to the test set, which changes nothing, and it draws no data of its own."""
    if subject.method.sees_truth and not subject.is_reference:
        raise FailedError("sees_truth is set, so that the true model is handed over; expected of the oracle alone")
    trial = subject.trial(subject.home)
    if holds(trial.task, trial.split.test):
        raise FailedError("the task leads to points of the test set; expected none within reach")
    trial, calls = _with_another_test_set(subject), Calls("datasets")
    fitted = trial.drive(subject.as_plain, within=lambda: calls)
    if calls.into and trial.task.truth is None:
        raise FailedError(f"fit calls {', '.join(calls.into)}; expected no data but those of the task")
    numbers = fingerprint(fitted, trial.problem)
    if differ := differing(numbers, subject.plain.numbers):
        raise FailedError(f"another test set changes {differ} of {count(numbers)} numbers; expected none")
    return f"another test set changes none of {count(numbers)} numbers; no path to it, no data drawn"


def _with_another_test_set(subject: Subject) -> Trial:
    problem = subject.problem(subject.home)
    split = draw(problem, 0, SIZE, SIZE, TEST_SIZE)
    other = dataclasses.replace(split, test=draw(problem, 1, 1, 1, TEST_SIZE).test)
    return subject.trial_on(problem, other, subject.spec(subject.home))


def bad_input(subject: Subject) -> str:
    """Data and hyperparameters that will not do are refused in one line that names them, or yield finite models."""
    refused = [_is_refused(what, subject, data) for what, data in _bad_data(subject).items()]
    changes = ((name, bad) for name, value in _numbers(subject.method).items() for bad in VALUES if bad != value)
    refused += [_is_refused_value(subject, name, bad) for name, bad in changes]
    return f"{sum(refused)} of {len(refused)} bad inputs are refused in one line; the others give finite models"


def _bad_data(subject: Subject) -> dict[str, Tensor]:
    """Training data that will not do, by what is wrong of them."""
    x = draw(subject.problem(subject.home), 0, SIZE, 1, 1).train
    wrong = {"nan": math.nan, "inf": math.inf}
    broken = {name: x.index_fill(0, torch.tensor([3]), value) for name, value in wrong.items()}
    return {**broken, "N = 1": x[:1], "N = 2": x[:2], "equal data": x[:1].expand(SIZE, -1).clone()}


def _numbers(method: Any) -> dict[str, float]:
    values = {field.name: getattr(method, field.name) for field in dataclasses.fields(method) if field.init}
    return {name: value for name, value in values.items() if type(value) in (int, float)}


def _is_refused(what: str, subject: Subject, train: Tensor) -> bool:
    if subject.declines(subject.home, len(train)):
        return True

    def trial() -> Trial:
        problem = subject.problem(subject.home)
        valid = draw(problem, 0, 1, SIZE, 1).validation
        return subject.trial_on(problem, Split(train, valid, valid[:0], None), subject.spec(subject.home))

    return _refuses(what, trial)


def _is_refused_value(subject: Subject, name: str, value: float) -> bool:
    def trial() -> Trial:
        return subject.changed(**{name: value}).trial(subject.home)

    return _refuses(f"{name} = {value}", trial, name)


def _refuses(what: str, make: Callable[[], Trial], name: str = "") -> bool:
    """Whether a fit is refused; raises FailedError unless in one line with the name, or if its model is not finite."""
    try:
        trial = make()
        numbers = fingerprint(trial.drive(BRIEF), trial.problem)
    except (ValueError, UsageError) as error:
        text = str(error)
        if not text or "\n" in text or name.replace("_", " ") not in text.replace("_", " ").lower():
            raise FailedError(f"{what}: {describe(error)}; expected one line that names what is wrong") from error
        return True
    except FailedError as failure:
        raise FailedError(f"{what}: {failure}") from failure
    except Exception as error:
        raise FailedError(f"{what}: {describe(error)}; expected a ValueError in one line, or a fit") from error
    if not all_finite(numbers):
        raise FailedError(f"{what}: a model that is not finite; expected a ValueError, or finite numbers")
    return False

"""Checks of data: what a method must not see, and how it treats invalid data and hyperparameters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from bench.check.errors import FailedError
from bench.check.fingerprint import all_finite, count, differing, fingerprint
from bench.check.method_under_test import N_TEST, N_TRAIN, MethodUnderTest
from bench.check.probes import Calls
from bench.check.reach import holds
from bench.check.short_fit import Limit, ShortFit
from bench.common.errors import UsageError, describe
from datasets.base import Split, draw
from methods.contract.method import Method

BRIEF = Limit(yields=20, flops=5e7, seconds=1.0)
EXTREMES = (-1, 0, math.nan)


def held_out(under_test: MethodUnderTest) -> str:
    """The method cannot reach the test set, does not depend on it, and draws no data itself.

    Args:
        under_test: The method.

    Returns:
        What was seen.

    Raises:
        FailedError: If the task leads to test points, another test set changes the results, or the fit draws data.
    """
    fit = under_test.fit(under_test.default_dataset)
    if holds(fit.task, fit.split.test):
        raise FailedError("test points can be reached from the task; expected none")
    other = dataclasses.replace(fit.split, test=draw(fit.problem, 1, 1, 1, N_TEST).test)
    fit, calls = under_test.fit_of(fit.problem, other, fit.spec), Calls("datasets")
    fitted = fit.run(under_test.as_short, around_step=lambda: calls)
    if calls.into and fit.task.truth is None:
        raise FailedError(f"fit calls {', '.join(calls.into)}; expected no data other than those of the task")
    numbers = fingerprint(fitted, fit.problem)
    if differ := differing(numbers, under_test.short.numbers):
        raise FailedError(f"another test set changes {differ} of {count(numbers)} numbers; expected none")
    return f"another test set changes none of {count(numbers)} numbers; it cannot be reached; no data are drawn"


def bad_input(under_test: MethodUnderTest) -> str:
    """Invalid data and hyperparameters raise a ValueError of one line that names them, or give finite models.

    Args:
        under_test: The method.

    Returns:
        What was seen.

    Raises:
        FailedError: If something else happens.
    """
    refused = [_refuses_data(under_test, what, train) for what, train in _invalid_data(under_test).items()]
    for name, value in _numbers(under_test.method).items():
        refused += [_refuses_value(under_test, name, each) for each in EXTREMES if each != value]
    return f"{sum(refused)} of {len(refused)} invalid inputs are refused in one line; the others give finite models"


def _invalid_data(under_test: MethodUnderTest) -> dict[str, Tensor]:
    """Training data that are hard or invalid, by what is wrong with them."""
    x = draw(under_test.problem(under_test.default_dataset), 0, N_TRAIN, 1, 1).train
    wrong = {"nan": math.nan, "inf": math.inf}
    broken = {name: x.index_fill(0, torch.tensor([3]), value) for name, value in wrong.items()}
    equal = x[:1].expand(N_TRAIN, -1).clone()
    return {**broken, "one training point": x[:1], "two training points": x[:2], "equal training points": equal}


def _numbers(method: Method) -> dict[str, float]:
    fields = dataclasses.fields(method)  # type: ignore[arg-type]
    values = {field.name: getattr(method, field.name) for field in fields if field.init}
    return {name: value for name, value in values.items() if type(value) in (int, float)}


def _refuses_data(under_test: MethodUnderTest, what: str, train: Tensor) -> bool:
    dataset = under_test.default_dataset
    if under_test.declines(dataset, len(train)):
        return True

    def fit() -> ShortFit:
        problem = under_test.problem(dataset)
        valid = draw(problem, 0, 1, N_TRAIN, 1).validation
        return under_test.fit_of(problem, Split(train, valid, valid[:0], None), under_test.spec(dataset))

    return _refuses(what, fit)


def _refuses_value(under_test: MethodUnderTest, name: str, value: float) -> bool:
    def fit() -> ShortFit:
        return under_test.with_hyperparameters(**{name: value}).fit(under_test.default_dataset)

    return _refuses(f"{name} = {value}", fit, name)


def _refuses(what: str, make: Callable[[], ShortFit], name: str = "") -> bool:
    """Whether a fit is refused. Raises FailedError if not in one line with the name, or if the model is not finite."""
    try:
        fit = make()
        numbers = fingerprint(fit.run(BRIEF), fit.problem)
    except (ValueError, UsageError) as error:
        text = str(error)
        lines = len(text.split("\n")) if text else 0
        if lines != 1:
            raise FailedError(f"{what}: {describe(error)} ({lines} lines); expected a message of one line") from error
        if name.replace("_", " ") not in text.replace("_", " ").lower():
            raise FailedError(f"{what}: {describe(error)}; expected a message that names {name}") from error
        return True
    except FailedError as failure:
        raise FailedError(f"{what}: {failure}") from failure
    except Exception as error:
        raise FailedError(f"{what}: {describe(error)}; expected a ValueError of one line, or a fit") from error
    if not all_finite(numbers):
        raise FailedError(f"{what}: the model is not finite; expected a ValueError, or finite numbers")
    return False

"""The check of the contract itself: what a method declares, and the form of what it yields."""

from __future__ import annotations

import dataclasses
from typing import get_args

import torch
from torch import Tensor

from bench.check.errors import FailedError
from bench.check.method_under_test import MethodUnderTest
from bench.check.short_fit import ShortFit
from datasets.base import draw
from methods.contract.method import Fitted, Method, Role, likelihood_of
from methods.contract.search_space import Range

PLAIN = (int, float, str, bool, type(None))
SHAPES = ((7,), (3, 7), (2, 3, 7))
LOG_PROB_ERROR = 0.1
DRAWS = ((1, 1), (5, 1), (1, 3), (5, 3))


def contract(under_test: MethodUnderTest) -> str:
    """The method is a frozen dataclass of plain fields, its declarations fit them, and its yields have the right form.

    Args:
        under_test: The method.

    Returns:
        What was seen.

    Raises:
        FailedError: If a part of the contract is broken.
    """
    names = _fields(under_test.method)
    _declarations(under_test.method, names)
    datasets = under_test.accepted("circle", "s_curve")
    for label in datasets:
        _yields(under_test.fit(label))
    return f"frozen dataclass with {len(names)} plain fields; right shapes, finite values on {' and '.join(datasets)}"


def _fields(method: Method) -> list[str]:
    """The names of the fields, if they are as the contract says."""
    if not type(method).__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise FailedError(f"{type(method).__name__} is mutable; expected @dataclass(frozen=True)")
    fields = dataclasses.fields(method)  # type: ignore[arg-type]
    for name, value in ((field.name, getattr(method, field.name)) for field in fields):
        if type(value) not in PLAIN:
            kinds = ", ".join(kind.__name__ for kind in PLAIN)
            raise FailedError(f"the default of field {name} is a {type(value).__name__}; expected one of {kinds}")
    if bare := [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]:
        raise FailedError(f"{', '.join(bare)} without a default; expected a default for each field")
    return [field.name for field in fields]


def _declarations(method: Method, fields: list[str]) -> None:
    """Check the class attributes. The names in `exceptions` are checked by `bench.check.checks.chosen`."""
    for attribute, declared in (("search", method.search), ("ablation", method.ablation)):
        if strange := [name for name in declared if name not in fields]:
            available = ", ".join(fields) or "none"
            raise FailedError(f"{attribute} has {', '.join(strange)}; expected names of fields ({available})")
    if wrong := [name for name, value in method.search.items() if not isinstance(value, Range)]:
        ranges = ", ".join(each.__name__ for each in get_args(Range))
        raise FailedError(f"search has no range for {', '.join(wrong)}; expected one of {ranges}")
    if empty := [name for name, levels in method.ablation.items() if not isinstance(levels, tuple) or not levels]:
        raise FailedError(f"ablation has no levels for {', '.join(empty)}; expected a tuple of one or more")
    if wordless := [name for name, why in method.exceptions.items() if not isinstance(why, str) or not why.strip()]:
        raise FailedError(f"exceptions has no reason for {', '.join(wordless)}; expected a sentence")
    if method.role not in get_args(Role):
        raise FailedError(f"role is {method.role!r}; expected one of {', '.join(map(repr, get_args(Role)))}")
    if method.sees_truth and method.role == "method":
        raise FailedError(
            "sees_truth is set with the role 'method'; only a ceiling or a reference may see the true model"
        )


def _yields(fit: ShortFit) -> None:
    """Check the first and the last yield, and that the data are not modified."""
    before = fit.task.train.clone(), fit.task.validation.clone()

    def look(number: int, fitted: Fitted) -> None:
        if number == 1:
            _shapes(fit, fitted)

    _shapes(fit, fit.run(at_yield=look))
    if not all(map(torch.equal, before, (fit.task.train, fit.task.validation))):
        raise FailedError("fit modified task.train or task.validation; expected both unchanged")


@torch.no_grad()
def _shapes(fit: ShortFit, fitted: Fitted) -> None:
    latent, data = fit.problem.latent_dim, fit.problem.data_dim
    variance = likelihood_of(fitted.model).dispersion
    if not (isinstance(variance, float) and 0 < variance < float("inf")):
        raise FailedError(f"variance() returns {variance!r}; expected a positive finite float")
    for shape in SHAPES:
        _expect("decode", fitted.model.decode(torch.zeros(*shape, latent)), (*shape, data))
    for number, rows in DRAWS:
        x = draw(fit.problem, 1, 1, 1, rows).test.float()
        z, log_q = fitted.posterior.sample(x, number, torch.Generator().manual_seed(0))
        _expect("posterior.sample", z, (number, rows, latent))
        _expect("log q of posterior.sample", log_q, (number, rows))
        density = fitted.posterior.log_prob(z[0], x)
        if density is not None:
            _expect("posterior.log_prob", density, (rows, rows))
            off = float((density.diagonal() - log_q[0]).abs().max())
            if off > LOG_PROB_ERROR:
                raise FailedError(
                    f"posterior.log_prob is {off:.3g} nats off log q of sample; expected {LOG_PROB_ERROR} at most"
                )
    if fitted.log_index is not None:
        log_index, n_train = fitted.log_index(fit.split.test[:5].float()), len(fit.task.train)
        if log_index.shape != (5, n_train):
            raise FailedError(f"log_index returns shape {tuple(log_index.shape)}; expected {(5, n_train)}")
        off = float(log_index.logsumexp(1).abs().max())
        if off > 1e-3:
            raise FailedError(f"log of the sum of exp(log_index) is {off:.3g} off 0; expected 0.001 at most")


def _expect(what: str, found: Tensor, shape: tuple[int, ...]) -> None:
    finite = bool(torch.isfinite(found).all())
    if tuple(found.shape) != shape or not finite:
        values = "" if finite else " with values that are not finite"
        raise FailedError(f"{what} returns shape {tuple(found.shape)}{values}; expected finite values of shape {shape}")

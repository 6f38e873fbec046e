"""Duties on how a method behaves: its form, what its results depend on, and what it leaves alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from bench.check.errors import FailedError
from bench.check.fingerprint import count, differing, fingerprint
from bench.check.method_under_test import Subject
from bench.check.probes import Draws
from bench.check.short_fit import Trial
from bench.metrics import Evaluator
from bench.process.containment import Containment, contained
from bench.process.global_state import Surroundings
from datasets.base import draw
from methods.contract.method import Fitted, Method

PLAIN = (int, float, str, bool, type(None))
SHAPES = ((7,), (3, 7), (2, 3, 7))
DRAWS = ((1, 1), (5, 1), (1, 3), (5, 3))
EVERY = 5
MOST_LOOKS = 12


def contract(subject: Subject) -> str:
    """A frozen dataclass of plain defaults, whose fit yields models and posteriors of the shapes that they state."""
    fields = _form(subject.method)
    datasets = subject.accepted("circle", "s_curve")
    for label in datasets:
        _fits(subject.trial(label))
    return f"frozen dataclass with {fields} plain fields; right shapes, finite values on {' and '.join(datasets)}"


def _fits(trial: Trial) -> None:
    """Check the first yield and the last, and that data are left alone."""
    before = trial.task.train.clone(), trial.task.validation.clone()

    def look(number: int, fitted: Fitted) -> None:
        if number == 1:
            _shapes(trial, fitted)

    _shapes(trial, trial.drive(look=look))
    if not all(map(torch.equal, before, (trial.task.train, trial.task.validation))):
        raise FailedError("the data handed to fit were modified; expected them as they were")


def _form(method: Any) -> int:
    """How many fields a method has, if it is of the right form."""
    if not type(method).__dataclass_params__.frozen:
        raise FailedError(f"{type(method).__name__} can be changed; expected @dataclass(frozen=True)")
    fields = dataclasses.fields(method)
    for name, value in ((field.name, getattr(method, field.name)) for field in fields):
        if type(value) not in PLAIN:
            kinds = ", ".join(kind.__name__ for kind in PLAIN)
            raise FailedError(f"field {name} defaults to a {type(value).__name__}; expected one of {kinds}")
    if bare := [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]:
        raise FailedError(f"no default for {', '.join(bare)}; expected one for each field")
    if not isinstance(method, Method):
        raise FailedError("no method fit(task); expected one that gives an iterator")
    return len(fields)


@torch.no_grad()
def _shapes(trial: Trial, fitted: Fitted) -> None:
    latent, data = trial.problem.latent_dim, trial.problem.data_dim
    variance = fitted.model.variance()
    if not (isinstance(variance, float) and 0 < variance < float("inf")):
        raise FailedError(f"variance() gives {variance!r}; expected a positive float")
    for shape in SHAPES:
        _expect("decode", fitted.model.decode(torch.zeros(*shape, latent)), (*shape, data))
    for number, rows in DRAWS:
        x = draw(trial.problem, 1, 1, 1, rows).test.float()
        z, log_q = fitted.posterior.sample(x, number, torch.Generator().manual_seed(0))
        _expect("posterior.sample", z, (number, rows, latent))
        _expect("log q of posterior.sample", log_q, (number, rows))
    if fitted.log_index is not None:
        log_index = fitted.log_index(trial.split.test[:5].float())
        if log_index.shape != (5, len(trial.task.train)) or float(log_index.logsumexp(1).abs().max()) > 1e-3:
            raise FailedError("log_index gives no log-probabilities over the training data, (n, D) -> (n, N)")


def _expect(what: str, found: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(found.shape) != shape or not bool(torch.isfinite(found).all()):
        finite = "" if bool(torch.isfinite(found).all()) else ", not all finite"
        raise FailedError(f"{what} gives shape {tuple(found.shape)}{finite}; expected finite values of shape {shape}")


def determinism(subject: Subject) -> str:
    """A seed decides everything, and the seed of the task's generator decides what is drawn."""
    again, _ = _fit(subject.trial(subject.home), subject)
    total, differ = count(again), differing(again, subject.plain.numbers)
    if differ:
        raise FailedError(f"two fits at seed 0 differ in {differ} of {total} numbers; expected none")
    agree = f"two fits at seed 0 agree in {total} numbers"
    if subject.is_reference:
        return agree
    other, _ = _fit(subject.trial(subject.home, seed=1), subject)
    if not differing(other, again):
        raise FailedError("fits at seeds 0 and 1 agree in every number; expected other results")
    return f"{agree}; seed 1 differs; {_of_the_generator(subject)}"


def _of_the_generator(subject: Subject) -> str:
    """Whether results depend on the task's generator, if any random number is drawn."""
    trial = subject.trial(subject.home)
    trial.task.generator.manual_seed(1)
    numbers, draws = _fit(trial, subject)
    if differing(numbers, subject.plain.numbers):
        return "another seed of task.generator alone differs"
    if draws.operators:
        drawn = ", ".join(f"{name} {times} times" for name, times in draws.operators.items())
        raise FailedError(f"random numbers are drawn ({drawn}), but not from task.generator: its seed changes nothing")
    return "no random number is drawn"


def _fit(trial: Trial, subject: Subject) -> tuple[list[Tensor], Draws]:
    draws = Draws()
    fitted = trial.drive(subject.as_plain, within=lambda: draws)
    return fingerprint(fitted, trial.problem), draws


def global_state(subject: Subject) -> str:
    """Results do not depend on what the process shares, and that is as before at each yield and after the fit."""
    expected, trial, containment = subject.plain, subject.trial(subject.home), Containment()
    with contained(1):
        before = Surroundings.capture()

    def unchanged(number: int, _: Fitted) -> None:
        if changes := Surroundings.capture().changes(before):
            raise FailedError(f"by yield {number} it {', '.join(changes)}; expected all as before")

    numbers = fingerprint(trial.drive(subject.as_plain, unchanged, elsewhere=1), trial.problem, elsewhere=1)
    if trial.changed:
        raise FailedError(f"at its end it {', '.join(trial.changed)}; expected all as before")
    if differ := differing(numbers, expected.numbers):
        raise FailedError(f"other global seeds change {differ} of {count(numbers)} numbers; expected none")
    if notes := containment.notes():
        raise FailedError(f"{'; '.join(notes)}; expected nothing after the fit")
    return f"as before at {len(trial.flops)} yields and after; {count(numbers)} numbers do not depend on global seeds"


def looking(subject: Subject) -> str:
    """Evaluation, however often, changes nothing."""
    trial, looks = subject.trial(subject.home), []
    evaluator = Evaluator(trial.problem, draw(trial.problem, 3, 1, 1, 4), seed=0)
    every = max(EVERY, subject.plain.yields // MOST_LOOKS)

    def look(number: int, fitted: Fitted) -> None:
        if number % every == 1 or number == subject.plain.yields:
            looks.append(evaluator.evaluate_checkpoint(fitted))

    fitted = trial.drive(subject.as_plain, look=look)
    numbers = fingerprint(fitted, trial.problem)
    if differ := differing(numbers, subject.plain.numbers):
        raise FailedError(f"{len(looks)} looks change {differ} of {count(numbers)} numbers; expected none")
    return f"{len(looks)} looks in {subject.plain.yields} yields change none of {count(numbers)} numbers"

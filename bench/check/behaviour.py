"""Checks of what the results of a method depend on, and of what it changes outside itself."""

from __future__ import annotations

from torch import Tensor

from bench.check.errors import FailedError
from bench.check.fingerprint import count, differing, fingerprint
from bench.check.method_under_test import MethodUnderTest
from bench.check.probes import Draws
from bench.check.short_fit import ShortFit
from bench.metrics import Evaluator
from bench.process.containment import Containment, contained
from bench.process.global_state import GlobalState
from datasets.base import draw
from methods.contract.method import Fitted

STEPS_BETWEEN = 5
MOST_EVALUATIONS = 12


def determinism(under_test: MethodUnderTest) -> str:
    """The seed alone decides the results, and all random numbers come from the generator of the task.

    Args:
        under_test: The method.

    Returns:
        What was seen.

    Raises:
        FailedError: If equal seeds give different results, or different seeds give equal results.
    """
    expected = under_test.short.numbers
    again, _ = _fit(under_test, under_test.fit(under_test.default_dataset))
    total, differ = count(again), differing(again, expected)
    if differ:
        raise FailedError(f"two fits at seed 0 differ in {differ} of {total} numbers; expected none")
    agree = f"two fits at seed 0 agree in {total} numbers"
    if under_test.learns_nothing:
        return agree
    other, _ = _fit(under_test, under_test.fit(under_test.default_dataset, seed=1))
    if not differing(other, again):
        raise FailedError(f"fits at seeds 0 and 1 agree in all {total} numbers; expected different results")
    reseeded = under_test.fit(under_test.default_dataset)
    reseeded.task.generator.manual_seed(1)
    numbers, draws = _fit(under_test, reseeded)
    if differing(numbers, expected):
        return f"{agree}; seed 1 differs; another seed of task.generator alone differs"
    if draws.operators:
        drawn = ", ".join(f"{name} {times} times" for name, times in draws.operators.items())
        raise FailedError(
            f"random numbers are drawn ({drawn}), but the seed of task.generator has no effect; "
            "expected all draws from task.generator"
        )
    return f"{agree}; seed 1 differs; no random number is drawn"


def _fit(under_test: MethodUnderTest, fit: ShortFit) -> tuple[list[Tensor], Draws]:
    draws = Draws()
    fitted = fit.run(under_test.as_short, around_step=lambda: draws)
    return fingerprint(fitted, fit.problem), draws


def global_state(under_test: MethodUnderTest) -> str:
    """The results do not depend on the global state of the process, and the method does not change that state.

    Args:
        under_test: The method.

    Returns:
        What was seen.

    Raises:
        FailedError: If global seeds change the results, a setting differs at a yield or after the fit, or a thread or
            child process is left running.
    """
    expected, fit, containment = under_test.short, under_test.fit(under_test.default_dataset), Containment()
    with contained(1):
        before = GlobalState.capture()

    def unchanged(number: int, _: Fitted) -> None:
        if changes := GlobalState.capture().changes(before):
            raise FailedError(f"by yield {number} the method {', '.join(changes)}; expected no change")

    fitted = fit.run(under_test.as_short, unchanged, global_seed=1)
    numbers = fingerprint(fitted, fit.problem, global_seed=1)
    if fit.changed:
        raise FailedError(f"by the end the method {', '.join(fit.changed)}; expected no change")
    if differ := differing(numbers, expected.numbers):
        raise FailedError(f"other global seeds change {differ} of {count(numbers)} numbers; expected none")
    if left := containment.left_behind():
        raise FailedError(f"{left}; expected nothing that runs after the fit")
    return f"unchanged at {len(fit.flops)} yields and after; {count(numbers)} numbers do not depend on global seeds"


def evaluation(under_test: MethodUnderTest) -> str:
    """Evaluation does not change the results, however often it happens.

    Args:
        under_test: The method.

    Returns:
        What was seen.

    Raises:
        FailedError: If a fit with evaluations ends differently from one without.
    """
    fit, evaluations = under_test.fit(under_test.default_dataset), 0
    evaluator = Evaluator(fit.problem, draw(fit.problem, 3, 1, 1, 4), seed=0)
    every = max(STEPS_BETWEEN, under_test.short.yields // MOST_EVALUATIONS)

    def evaluate(number: int, fitted: Fitted) -> None:
        nonlocal evaluations
        if number % every == 1 or number == under_test.short.yields:
            evaluator.evaluate_checkpoint(fitted)
            evaluations += 1

    numbers = fingerprint(fit.run(under_test.as_short, evaluate), fit.problem)
    if differ := differing(numbers, under_test.short.numbers):
        raise FailedError(f"{evaluations} evaluations change {differ} of {count(numbers)} numbers; expected none")
    return f"{evaluations} evaluations in {under_test.short.yields} yields change none of {count(numbers)} numbers"

"""All checks, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterable

from bench.check.behaviour import determinism, evaluation, global_state
from bench.check.conformance import Check
from bench.check.contract import contract
from bench.check.cost import budget, cost
from bench.check.data import bad_input, held_out
from bench.check.method_under_test import MethodUnderTest
from bench.check.ppca import optimum
from bench.check.quality import bound, learning
from bench.check.training import gradient, saving
from bench.common.errors import unknown

CHECKS = (
    Check("contract", contract, learners_only=False),
    Check("determinism", determinism, learners_only=False),
    Check("global-state", global_state, learners_only=False),
    Check("evaluation", evaluation, learners_only=False),
    Check("bound", bound, learners_only=False),
    Check("learning", learning),
    Check("gradient", gradient),
    Check("budget", budget),
    Check("cost", cost, learners_only=False),
    Check("saving", saving),
    Check("optimum", optimum),
    Check("held-out", held_out, learners_only=False),
    Check("bad-input", bad_input, learners_only=False),
)

SLOW = ("bound", "optimum")
QUICK = tuple(check for check in CHECKS if check.name not in SLOW)


def chosen(names: Iterable[str], under_test: MethodUnderTest) -> tuple[Check, ...]:
    """The checks of the given names, in the order of `CHECKS`.

    Args:
        names: Names of checks; all checks run if there are none.
        under_test: The method, whose `exceptions` must be names of checks too.

    Raises:
        UsageError: For an unknown name.
    """
    names = tuple(names)
    known = [check.name for check in CHECKS]
    for name in (*names, *under_test.method.exceptions):
        if name not in known:
            raise unknown("check", name, known)
    return tuple(check for check in CHECKS if not names or check.name in names)

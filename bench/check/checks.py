"""All duties, in the order in which they are checked."""

from __future__ import annotations

from collections.abc import Iterable

from bench.check.behaviour import contract, determinism, global_state, looking
from bench.check.cost import budget, cost
from bench.check.data import bad_input, held_out
from bench.check.kit import Duty
from bench.check.method_under_test import Subject
from bench.check.ppca import optimum
from bench.check.quality import better, bound
from bench.check.training import gradient, saving
from bench.common.errors import unknown

DUTIES = (
    Duty("contract", contract, trains=False),
    Duty("determinism", determinism, trains=False),
    Duty("global-state", global_state, trains=False),
    Duty("looking", looking, trains=False),
    Duty("bound", bound, trains=False),
    Duty("better", better),
    Duty("gradient", gradient),
    Duty("budget", budget),
    Duty("cost", cost, trains=False),
    Duty("saving", saving),
    Duty("optimum", optimum),
    Duty("held-out", held_out, trains=False),
    Duty("bad-input", bad_input, trains=False),
)


def chosen(names: Iterable[str], subject: Subject) -> tuple[Duty, ...]:
    """The duties of these names, in the kit's order; all, where none is named.

    Raises UsageError for an unknown one, be it asked for or among the exceptions that the method declares.
    """
    names = tuple(names)
    known = [duty.name for duty in DUTIES]
    for name in (*names, *subject.method.exceptions):
        if name not in known:
            raise unknown("duty", name, known)
    return tuple(duty for duty in DUTIES if not names or duty.name in names)

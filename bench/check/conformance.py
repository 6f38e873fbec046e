"""Runs checks one after the other and reports the outcome of each."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import torch
from threadpoolctl import threadpool_limits

from bench.check.errors import FailedError, SkippedError
from bench.check.method_under_test import MethodUnderTest
from bench.common.errors import describe
from bench.process.containment import silenced

TIMEOUT_S = 600.0
Status = Literal["pass", "fail", "excused", "skipped"]


@dataclass(frozen=True)
class Check:
    """One property that a method must have.

    Args:
        name: What `--check` and `Method.exceptions` call it.
        function: Returns a sentence about what it saw. Raises FailedError or SkippedError.
        learners_only: Whether the check is skipped for methods that learn nothing, the ceiling and the floor.
    """

    name: str
    function: Callable[[MethodUnderTest], str]
    learners_only: bool = True


@dataclass(frozen=True)
class Outcome:
    """The outcome of a check.

    Args:
        check: The name of the check.
        status: "excused" is a failure for which the method states a reason in `exceptions`.
        seen: What the check saw.
        seconds: Wall-clock time of the check.
    """

    check: str
    status: Status
    seen: str
    seconds: float


def run(under_test: MethodUnderTest, checks: Iterable[Check]) -> Iterator[Outcome]:
    """Run checks on one thread. An exception of the method fails the check; its output is dropped.

    Args:
        under_test: The method.
        checks: The checks, in the order in which they run.

    Yields:
        The outcome of each check as soon as it ends.
    """
    for check in checks:
        start = time.perf_counter()
        torch.set_num_threads(1)
        with silenced(), threadpool_limits(1), _timeout():
            status, seen = _outcome(under_test, check)
        yield Outcome(check.name, status, seen, time.perf_counter() - start)


@contextlib.contextmanager
def _timeout() -> Iterator[None]:
    """Fail a check that takes too long, such as one of a fit that never yields, if Python can still handle signals."""

    def give_up(*_: object) -> NoReturn:
        raise FailedError(f"not finished after {TIMEOUT_S:g} s; expected a fit that yields often, so that it can stop")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _outcome(under_test: MethodUnderTest, check: Check) -> tuple[Status, str]:
    method = under_test.method
    if check.learners_only and under_test.learns_nothing:
        return "skipped", f"{under_test.label} has the role {method.role!r} and learns nothing"
    try:
        return "pass", check.function(under_test)
    except SkippedError as reason:
        return "skipped", str(reason)
    except FailedError as failure:
        seen = str(failure)
    except (Exception, SystemExit) as error:
        seen = f"raised {describe(error)} ({_place(error)})"
    excuses = method.exceptions
    return ("excused", f"{excuses[check.name]} ({seen})") if check.name in excuses else ("fail", seen)


def _place(error: BaseException) -> str:
    """File and line of the innermost frame outside installed packages, or of the innermost one if all are inside."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or list(frames)
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}"

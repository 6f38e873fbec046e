"""Runs duties one after the other, and says what became of each."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from threadpoolctl import threadpool_limits

from bench.check.errors import FailedError, SkippedError
from bench.check.method_under_test import Subject
from bench.process.containment import silenced
from bench.registry.registry import describe

PATIENCE_S = 600.0


@dataclass(frozen=True)
class Duty:
    """What is asked of a method. trains: whether it makes sense only of a method that learns something."""

    name: str
    meets: Callable[[Subject], str]
    trains: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of a duty: its status, 'pass', 'fail', 'excused' or 'skipped', and what was seen."""

    duty: str
    status: str
    seen: str
    seconds: float


def run(subject: Subject, duties: Iterable[Duty]) -> Iterator[Outcome]:
    """The outcome of each duty as it ends, on one thread. What a method raises fails it; what it prints is dropped."""
    for duty in duties:
        start = time.perf_counter()
        torch.set_num_threads(1)
        with silenced(), threadpool_limits(1), _patience():
            status, seen = _outcome(subject, duty)
        yield Outcome(duty.name, status, seen, time.perf_counter() - start)


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Within, a duty that takes far too long fails, as that of a fit that never yields, where Python can still act."""

    def give_up(*_: object) -> NoReturn:
        raise FailedError(
            f"not over after {PATIENCE_S:g} s; a fit must yield again and again, so that it can be stopped"
        )

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _outcome(subject: Subject, duty: Duty) -> tuple[str, str]:
    if duty.trains and subject.is_reference:
        return "skipped", f"{subject.label} is a reference, which learns nothing"
    try:
        return "pass", duty.meets(subject)
    except SkippedError as reason:
        return "skipped", str(reason)
    except FailedError as failure:
        seen = str(failure)
    except (Exception, SystemExit) as error:
        seen = f"raised {describe(error)} ({_place(error)})"
    excuses: Mapping[str, str] = subject.method.exceptions
    return ("excused", f"{excuses[duty.name]} ({seen})") if duty.name in excuses else ("fail", seen)


def _place(error: BaseException) -> str:
    """The innermost file and line that an exception came from, leaving installed packages aside where possible."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or list(frames)
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}"

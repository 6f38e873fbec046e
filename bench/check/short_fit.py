"""One fit, driven as `bench.fit.runner` does, and stopped early."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from bench.check.errors import FailedError
from bench.fit.flop_counter import CountingLedger
from bench.fit.runner import begun_when_resumed
from bench.process.containment import contained
from bench.store.records import RunSpec
from datasets.base import Problem, Split
from methods.contract.method import Fitted, Task


@dataclass(frozen=True)
class Limit:
    """When a fit is stopped: after so many yields, FLOPs or CPU seconds, whichever comes first."""

    yields: int = 10**9
    flops: float = 2e8
    seconds: float = 5.0

    def reached(self, yields: int, flops: float, seconds: float) -> bool:
        """Whether a fit that has come so far is to be stopped."""
        return yields >= self.yields or flops >= self.flops or seconds >= self.seconds


SHORT = Limit(yields=200)
LONG = Limit(flops=1e10, seconds=10)
Look = Callable[[int, Fitted], bool | None]
Within = Callable[[], AbstractContextManager[Any]]


@dataclass
class Trial:
    """One fit.

    flops: what it had spent at each yield. changed: what it had changed of its surroundings at its end. begun: a copy
    of its model at the initial weights.
    """

    method: Any
    problem: Problem
    split: Split
    spec: RunSpec
    task: Task
    ledger: CountingLedger
    flops: list[float] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begun = copy.deepcopy(self.task.model)

    def drive(
        self, limit: Limit = SHORT, look: Look | None = None, within: Within = nullcontext, elsewhere: int = 0
    ) -> Fitted:
        """Fit up to a limit; what was yielded last. The surroundings are as before afterwards.

        look: is given the number of each yield, from 1, and what was yielded; the fit ends where it returns True.
        within: what surrounds each step. elsewhere: the seed of the global generators.
        """
        start, found = time.process_time(), None
        with contained(elsewhere) as self.changed, contextlib.closing(self._steps(within)) as steps:
            for count, found in enumerate(steps, 1):
                ended = look is not None and look(count, found)
                if ended or limit.reached(count, self.ledger.flops, time.process_time() - start):
                    break
        if found is None:
            raise FailedError("fit ended without yielding; expected one Fitted or more")
        return found

    def _steps(self, within: Within) -> Generator[Fitted, None, None]:
        """What is yielded, with the clock of FLOPs running until then; closes the fit."""
        with contextlib.closing(begun_when_resumed(self.method, self.task)) as fit:
            while True:
                with within(), self._counted():
                    fitted = next(fit, None)
                if fitted is None:
                    return
                if not isinstance(fitted, Fitted):
                    raise FailedError(
                        f"fit yielded a {type(fitted).__name__}; expected a methods.contract.method.Fitted"
                    )
                self.flops.append(self.ledger.flops)
                yield fitted

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self.ledger.start()
        try:
            yield
        finally:
            self.ledger.stop()

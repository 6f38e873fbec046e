"""One fit, run in the same way as by `bench.fit.runner`, but stopped early."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from bench.check.errors import FailedError
from bench.fit.block import begun_when_resumed
from bench.fit.flop_counter import CountingLedger
from bench.process.containment import contained
from bench.store.records import RunSpec
from datasets.base import Problem, Split
from methods.contract.method import Fitted, Method, Task


@dataclass(frozen=True)
class Limit:
    """When a fit stops: at the first of these limits.

    Args:
        yields: Number of yields.
        flops: FLOPs in the ledger.
        seconds: CPU seconds.
    """

    yields: int = 10**9
    flops: float = 2e8
    seconds: float = 5.0

    def reached(self, yields: int, flops: float, seconds: float) -> bool:
        """Whether a fit stops after so many yields, FLOPs and CPU seconds."""
        return yields >= self.yields or flops >= self.flops or seconds >= self.seconds


SHORT = Limit(yields=200)
LONG = Limit(flops=1e10, seconds=10)
AtYield = Callable[[int, Fitted], bool | None]
AroundStep = Callable[[], AbstractContextManager[Any]]


@dataclass
class ShortFit:
    """One fit that can run once, up to a limit.

    Args:
        method: The method.
        problem: The true model.
        split: The data, with the test set that the method must not see.
        spec: The run that the fit corresponds to.
        task: What the method is given.
        ledger: The ledger of the task.
        flops: The FLOPs spent up to each yield.
        changed: How the fit changed the global state of the process, in words, known when it has ended.
    """

    method: Method
    problem: Problem
    split: Split
    spec: RunSpec
    task: Task
    ledger: CountingLedger
    flops: list[float] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.initial_model = copy.deepcopy(self.task.model)

    def run(
        self,
        limit: Limit = SHORT,
        at_yield: AtYield | None = None,
        around_step: AroundStep = nullcontext,
        global_seed: int = 0,
    ) -> Fitted:
        """Fit up to a limit, and restore the global state of the process.

        Args:
            limit: When to stop.
            at_yield: Called with the number of each yield, from 1, and what it yielded. The fit stops if it returns
                True.
            around_step: Makes a context in which one step runs, from yield to yield.
            global_seed: The seed of the global random generators.

        Returns:
            The last yield.

        Raises:
            FailedError: If the method yields nothing, or something other than a Fitted.
        """
        start, fitted = time.process_time(), None
        with contained(global_seed) as self.changed, contextlib.closing(self._steps(around_step)) as steps:
            for count, fitted in enumerate(steps, 1):
                ended = at_yield is not None and at_yield(count, fitted)
                if ended or limit.reached(count, self.ledger.flops, time.process_time() - start):
                    break
        if fitted is None:
            raise FailedError("fit ended without a yield; expected at least one Fitted")
        return fitted

    def _steps(self, around_step: AroundStep) -> Generator[Fitted, None, None]:
        """Each yield, with the ledger on during a step only. Closes the fit."""
        with contextlib.closing(begun_when_resumed(self.method, self.task)) as fit:
            while True:
                with around_step(), self._counted():
                    fitted = next(fit, None)
                if fitted is None:
                    return
                if not isinstance(fitted, Fitted):
                    kind = type(fitted).__name__
                    raise FailedError(f"fit yielded a {kind}; expected a methods.contract.method.Fitted")
                self.flops.append(self.ledger.flops)
                yield fitted

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self.ledger.start()
        try:
            yield
        finally:
            self.ledger.stop()

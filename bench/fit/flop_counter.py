"""Counts the cost of fitting: FLOPs of torch's operators, charges for other work, and rows through the networks.

`bench.fit.operators` says what an operator costs. All costs are whole numbers, so sums are exact up to 2^53 FLOPs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.common.text import plain
from bench.fit.operators import Arguments, look_up
from bench.store.records import Work

__all__ = ["CountingLedger"]

T = TypeVar("T")

OTHER = "other operators"
NAME = 200  # characters of the name of a kind of work


class _Counting(TorchDispatchMode):
    def __init__(self, ledger: CountingLedger):
        super().__init__()
        self.ledger = ledger

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if look_up(func).composite:  # under inference_mode these arrive whole
            with self:
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        start = perf_counter()
        self.ledger._count(func, args, kwargs, out)
        self.ledger.overhead_s += perf_counter() - start
        return out

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False avoids a wrapper around every operator that costs more time than counting."""
        return False


class _Tally:
    """Calls and FLOPs of one kind of work so far."""

    __slots__ = ("calls", "flops")

    def __init__(self) -> None:
        self.calls = self.flops = 0


class _Known(NamedTuple):
    """What repeating a piece of work adds."""

    changes: list[tuple[_Tally, int, int]]
    passes: dict[str, int]
    flops: int


class CountingLedger:
    """Counts the work between `start` and `stop`.

    Operators are counted one by one as they run. Work under `run` is counted this way only the first time that its name
    is seen with the shapes of its arguments; repeating it runs at full speed.

    Attributes:
        unlisted: Operators that ran and are not in the cost model.
        overhead_s: Seconds spent on counting, which are not part of the method's time.
        passes: Rows that passed forward through `decoder` and `encoder`.
    """

    def __init__(self) -> None:
        self.passes = {"decoder": 0, "encoder": 0}
        self.overhead_s = 0.0
        self.active = self._every = False
        self.unlisted: set[str] = set()
        self._flops = 0
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._current = self._other = self._tally(OTHER, "operators")
        self._known: dict[tuple[Any, ...], _Known] = {}
        self._within_known = False
        self._mode = _Counting(self)

    @property
    def decoder_passes(self) -> int:
        """Rows that passed forward through the decoder so far."""
        return self.passes["decoder"]

    @property
    def encoder_passes(self) -> int:
        """Rows that passed forward through the encoder so far."""
        return self.passes["encoder"]

    @property
    def flops(self) -> float:
        """All FLOPs so far."""
        return float(self._flops)

    @property
    def formula_flops(self) -> float:
        """The FLOPs that were charged by formula, not counted."""
        return float(sum(work.flops for work in self.account() if work.by == "formula"))

    def account(self) -> list[Work]:
        """The FLOPs of each kind of work. Their sum is exactly `flops`.

        Operators within `run` are listed under the name of that work, or of the innermost one; all other operators are
        listed as 'other operators', each as one call.
        """
        return [
            Work(plain(name, NAME), t.calls, float(t.flops), by) for (name, by), t in self._tallies.items() if t.calls
        ]

    def start(self, every: bool = True) -> None:
        """Start counting.

        Args:
            every: Whether all operators are counted, or only those under `run` and `repeat`.
        """
        self.active, self._every = True, every
        self._listen(every)

    def stop(self) -> None:
        """Stop counting."""
        self._listen(False, self._every)
        self.active = self._every = False

    def _listen(self, on: bool, was: bool = False) -> None:
        """Make every operator call the ledger, or no longer."""
        if on and not was:
            self._mode.__enter__()
        elif was and not on:
            self._mode.__exit__(None, None, None)

    def run(self, name: str, work: Callable[..., T], *args: Any) -> T:
        """Run repeated work at full speed: it is counted once for each name and set of argument shapes.

        Args:
            name: What the work is called in the tables.
            work: A function whose operators depend only on `name` and the shapes of its arguments.
            *args: Its arguments.

        Returns:
            work(*args).
        """
        if self._within_known or not self.active:
            return work(*args)
        start = perf_counter()
        key = (name, *(a.shape if isinstance(a, Tensor) else None for a in args))
        known = self._known.get(key)
        if known is None:
            return self._run_new(key, work, *args)
        self._add(known)
        return self._run_known(start, work, *args)

    def repeat(self, name: str, alone: Callable[[], object]) -> None:
        """Account for work that is done elsewhere, together with that of other seeds.

        Args:
            name: What the work is called in the tables.
            alone: The same work done alone; it is run the first time that its name is seen, to count what it costs.
        """
        if not self.active:
            return
        known = self._known.get((name,))
        if known is not None:
            self._add(known)
        else:
            start, before = perf_counter(), self.overhead_s
            self._run_new((name,), alone)
            self.overhead_s = before + perf_counter() - start  # all of it, with what counting added within

    def _add(self, known: _Known) -> None:
        self._flops += known.flops
        for tally, calls, flops in known.changes:
            tally.calls += calls
            tally.flops += flops
        for network, rows in known.passes.items():
            self.passes[network] += rows

    def _run_known(self, start: float, work: Callable[..., T], *args: Any) -> T:
        self._within_known = True
        self._listen(False, self._every)
        self.overhead_s += perf_counter() - start
        try:
            return work(*args)
        finally:
            end = perf_counter()
            self._listen(self._every)
            self._within_known = False
            self.overhead_s += perf_counter() - end

    def _run_new(self, key: tuple[Any, ...], work: Callable[..., T], *args: Any) -> T:
        before = {tally: (tally.calls, tally.flops) for tally in self._tallies.values()}
        passes, total = self.passes.copy(), self._flops
        outer, self._current = self._current, self._tally(key[0], "operators")
        self._current.calls += 1
        self._listen(True, self._every)
        try:
            result = work(*args)
        finally:
            self._listen(self._every, True)
            self._current = outer
        changes = []
        for tally in self._tallies.values():
            calls, flops = before.get(tally, (0, 0))
            if tally.calls > calls:
                changes.append((tally, tally.calls - calls, tally.flops - flops))
        rows = {name: count - passes[name] for name, count in self.passes.items()}
        self._known[key] = _Known(changes, rows, self._flops - total)
        return result

    def charge(self, name: str, flops: float) -> None:
        """Add the FLOPs of work that torch does not run, rounded to a whole number.

        Args:
            name: What the work is called in the tables.
            flops: Its FLOPs.

        Raises:
            ValueError: If they are negative or not finite.
        """
        if not 0 <= flops < math.inf:
            raise ValueError(f"ledger.charge({name!r}) needs FLOPs from 0 to infinity, got {flops}")
        if self.active and not self._within_known:
            tally = self._tally(name, "formula")
            tally.calls += 1
            tally.flops += round(flops)
            self._flops += round(flops)

    def watch(self, *, decoder: nn.Module | None = None, encoder: nn.Module | None = None) -> None:
        """Count the rows that pass forward through a network, and through its copies, while the ledger counts.

        Args:
            decoder: A network whose rows are decoder passes.
            encoder: A network whose rows are encoder passes.
        """
        for name, network in (("decoder", decoder), ("encoder", encoder)):
            if network is not None:
                # A forward hook would take every call of the network through torch's slow path.
                network.forward = functools.partial(self._pass, name, network.forward)

    def _pass(self, network: str, forward: Callable[..., T], rows: Tensor, *args: Any, **kwargs: Any) -> T:
        if self.active and not self._within_known:
            start = perf_counter()
            self.passes[network] += rows.shape[:-1].numel()
            self.overhead_s += perf_counter() - start
        return forward(rows, *args, **kwargs)

    def _tally(self, name: str, by: str) -> _Tally:
        return self._tallies.setdefault((name, by), _Tally())

    def _count(self, function: Any, args: Arguments, kwargs: Mapping[str, Any], out: Any) -> None:
        operator = look_up(function)
        if operator.cost is None:
            return
        flops = operator.flops(args, kwargs, out)
        self._current.flops += flops
        self._flops += flops
        if self._current is self._other:
            self._other.calls += 1
        if not operator.listed:
            self.unlisted.add(operator.name)

    def __deepcopy__(self, memo: dict[int, Any]) -> CountingLedger:
        """The ledger itself, so that a copy of a watched network is watched by the same ledger."""
        return self

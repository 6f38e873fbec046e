"""Counts the cost of fitting: FLOPs of torch's operators, charges for other work, and rows through the networks.

`bench.fit.cost_model` says what an operator costs. All costs are whole numbers, so sums are exact up to 2^53 FLOPs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.fit import cost_model
from bench.store.records import Work

__all__ = ["CountingLedger"]

T = TypeVar("T")
Arguments = tuple[Any, ...]
Rule = Callable[[Arguments, Mapping[str, Any], Any], int]

OTHER = "other operators"
POWERS = {1: 0, 2: 1, 3: 2, 0.5: 1, -0.5: 1, -1: 1, -2: 2}


def _numel(values: Any) -> int:
    if isinstance(values, Tensor):
        return values.numel()
    if isinstance(values, Iterable) and not isinstance(values, str):
        return sum(_numel(value) for value in values)
    return 0


def _log2(n: int) -> int:
    """log2 n, rounded up; 0 for n = 0."""
    return max(n - 1, 0).bit_length()


def _per_result(flops: int) -> Rule:
    """A cost per element of the result; in-place operators on lists return none, so their first argument is counted."""
    return lambda args, _, out: flops * _numel(args[0] if out is None else out)


def _per_read(flops: int) -> Rule:
    return lambda args, _kwargs, _out: flops * _numel(args[0])


def _sorting(function: Any) -> Rule:
    """A cost per sorted row; an operator without a dimension sorts all elements as one row."""
    place = {argument.name: i for i, argument in enumerate(function._schema.arguments)}.get("dim")

    def cost(args: Arguments, kwargs: Mapping[str, Any], _out: Any) -> int:
        x = args[0]
        along = kwargs.get("dim", args[place] if place is not None and place < len(args) else -1)
        n = x.shape[along] if place is not None and x.dim() else x.numel()
        return x.numel() * _log2(n)

    return cost


def _product(function: Any, extra: bool) -> Rule:
    count = flop_registry[function]

    def cost(args: Arguments, kwargs: Mapping[str, Any], out: Any) -> int:
        return int(count(*args, **kwargs, out_val=out)) + extra * _numel(out)

    return cost


def _sum(args: Arguments, kwargs: Mapping[str, Any], out: Any) -> int:
    return (1 if kwargs.get("alpha", 1) == 1 else 2) * _numel(args[0] if out is None else out)


def _power(args: Arguments, _kwargs: Mapping[str, Any], out: Any) -> int:
    known = isinstance(args[1], int | float)
    return (POWERS.get(args[1], cost_model.TRANSCENDENTAL) if known else cost_model.TRANSCENDENTAL) * _numel(out)


def _euclidean(args: Arguments, _kwargs: Mapping[str, Any], out: Any) -> int:
    dim = args[0].shape[-1]
    return (2 * dim + 6) * _numel(out) + 3 * _numel(args[:2])


def _multinomial(args: Arguments, kwargs: Mapping[str, Any], out: Any) -> int:
    weights, count = args[:2]
    if count == 1 or not kwargs.get("replacement", len(args) > 2 and args[2]):
        return (cost_model.DRAW + 2) * _numel(weights)
    return 2 * _numel(weights) + (cost_model.DRAW + _log2(weights.shape[-1])) * _numel(out)


def _accumulating(args: Arguments, kwargs: Mapping[str, Any], _out: Any) -> int:
    return _numel(args[2]) if kwargs.get("accumulate", len(args) > 3 and args[3]) else 0


RULES: dict[str, Rule] = {
    **{
        name: _per_result(flops)
        for name, flops in (cost_model.PER_RESULT | cost_model.PER_DRAW | cost_model.PER_PARAMETER).items()
    },
    **{name: _per_read(flops) for name, flops in cost_model.PER_READ.items()},
    **dict.fromkeys(("add", "sub", "rsub"), _sum),
    **dict.fromkeys(("mv", "dot", "vdot"), _per_read(2)),
    **dict.fromkeys(("index_put", "_index_put_impl"), _accumulating),
    "_cdist_backward": lambda args, *_: 4 * args[1].shape[-1] * _numel(args[0]),
    "_cdist_forward": lambda args, _, out: (3 * args[0].shape[-1] + 1) * _numel(out),
    "_euclidean_dist": _euclidean,
    "_linalg_eigh": lambda args, *_: 9 * args[0].shape[-1] * _numel(args[0]),
    "_pdist_forward": lambda args, _, out: (3 * args[0].shape[-1] + 1) * _numel(out),
    "addmv": lambda args, *_: 2 * _numel(args[1]) + _numel(args[0]),
    "bucketize": lambda args, _, out: _log2(_numel(args[1])) * _numel(out),
    "index_add": lambda args, *_: _numel(args[3]),
    "linalg_solve_triangular": lambda args, *_: args[0].shape[-1] * _numel(args[1]),
    "multinomial": _multinomial,
    "pow": _power,
    "scatter_add": lambda args, *_: _numel(args[3]),
    "searchsorted": lambda args, _, out: _log2(args[0].shape[-1]) * _numel(out),
}


@dataclass(frozen=True)
class _Operator:
    """An operator: its name, its cost rule (None if it is free), and whether the cost model lists it."""

    name: str
    cost: Rule | None
    listed: bool = True


@functools.cache
def _look_up(function: Any) -> _Operator:
    name = function._schema.name.removeprefix("aten::")
    base = name.removeprefix("_foreach_").removesuffix("_")
    if base in cost_model.FREE:
        return _Operator(name, None)
    if function.overloadpacket in flop_registry:
        return _Operator(name, _product(function.overloadpacket, extra="add" in name))
    if base in cost_model.SORTS:
        return _Operator(name, _sorting(function))
    rule = RULES.get(base)
    return _Operator(name, rule or _per_result(cost_model.UNLISTED), rule is not None)


class _Counting(TorchDispatchMode):
    def __init__(self, ledger: CountingLedger):
        super().__init__()
        self.ledger = ledger

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
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
        self.active = False
        self.unlisted: set[str] = set()
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._current = self._other = self._tally(OTHER, "operators")
        self._known: dict[tuple[Any, ...], list[tuple[_Tally, int, int]]] = {}
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
        return float(sum(tally.flops for tally in self._tallies.values()))

    @property
    def formula_flops(self) -> float:
        """The FLOPs that were charged by formula, not counted."""
        return sum(work.flops for work in self.account() if work.by == "formula")

    def account(self) -> list[Work]:
        """The FLOPs of each kind of work. Their sum is exactly `flops`.

        Operators within `run` are listed under the name of that work, or of the innermost one; all other operators are
        listed as 'other operators', each as one call.
        """
        return [Work(name, t.calls, float(t.flops), by) for (name, by), t in self._tallies.items() if t.calls]

    def start(self) -> None:
        """Start counting."""
        self.active = True
        self._mode.__enter__()

    def stop(self) -> None:
        """Stop counting."""
        self._mode.__exit__(None, None, None)
        self.active = False

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
        changes = self._known.get(key)
        if changes is None:
            return self._run_new(key, work, *args)
        for tally, calls, flops in changes:
            tally.calls += calls
            tally.flops += flops
        return self._run_known(start, work, *args)

    def _run_known(self, start: float, work: Callable[..., T], *args: Any) -> T:
        self._within_known = True
        self._mode.__exit__(None, None, None)
        self.overhead_s += perf_counter() - start
        try:
            return work(*args)
        finally:
            end = perf_counter()
            self._mode.__enter__()
            self._within_known = False
            self.overhead_s += perf_counter() - end

    def _run_new(self, key: tuple[Any, ...], work: Callable[..., T], *args: Any) -> T:
        before = {tally: (tally.calls, tally.flops) for tally in self._tallies.values()}
        outer, self._current = self._current, self._tally(key[0], "operators")
        self._current.calls += 1
        try:
            result = work(*args)
        finally:
            self._current = outer
        changes = []
        for tally in self._tallies.values():
            calls, flops = before.get(tally, (0, 0))
            if tally.calls > calls:
                changes.append((tally, tally.calls - calls, tally.flops - flops))
        self._known[key] = changes
        return result

    def charge(self, name: str, flops: float) -> None:
        """Add the FLOPs of work that torch does not run, rounded to a whole number.

        Args:
            name: What the work is called in the tables.
            flops: Its FLOPs.
        """
        if self.active and not self._within_known:
            tally = self._tally(name, "formula")
            tally.calls += 1
            tally.flops += round(flops)

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
        if self.active:
            start = perf_counter()
            self.passes[network] += rows.shape[:-1].numel()
            self.overhead_s += perf_counter() - start
        return forward(rows, *args, **kwargs)

    def _tally(self, name: str, by: str) -> _Tally:
        return self._tallies.setdefault((name, by), _Tally())

    def _count(self, function: Any, args: Arguments, kwargs: Mapping[str, Any], out: Any) -> None:
        operator = _look_up(function)
        if operator.cost is None:
            return
        self._current.flops += operator.cost(args, kwargs, out)
        if self._current is self._other:
            self._other.calls += 1
        if not operator.listed:
            self.unlisted.add(operator.name)

    def __deepcopy__(self, memo: dict[int, Any]) -> CountingLedger:
        """The ledger itself, so that a copy of a watched network is watched by the same ledger."""
        return self

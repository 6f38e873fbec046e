"""Counts the cost of fitting: FLOPs of torch's operators, charges for other work, and rows through the networks.

`bench.fit.cost_model` says what an operator costs. All costs are whole numbers, so sums are exact up to 2^53 FLOPs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn, strided
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.common.text import plain
from bench.fit import cost_model
from bench.store.records import Work

__all__ = ["CountingLedger"]

T = TypeVar("T")
Arguments = tuple[Any, ...]
Rule = Callable[[Arguments, Mapping[str, Any], Any], int]

OTHER = "other operators"
NAME = 200  # characters of the name of a kind of work
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
        if any(isinstance(each, Tensor) and each.layout != strided for each in args):
            return _sparse(args, kwargs, out) + extra * _numel(out)
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


def _mat(args: Arguments) -> tuple[int, int, int, int]:
    """The sides of a batch of matrices, longer and shorter, the number of matrices, and the columns of args[1]."""
    rows, columns = args[0].shape[-2:]
    count = args[0].numel() // max(rows * columns, 1)
    right = args[1] if len(args) > 1 else None
    width = right.shape[-1] if isinstance(right, Tensor) and right.dim() > 1 else 1
    return max(rows, columns), min(rows, columns), count, width


def _per_matrix(flops: Callable[[float, float, float], float]) -> Rule:
    """A cost per matrix, as a function of its longer and shorter side and of the number of right-hand sides."""

    def cost(args: Arguments, _kwargs: Mapping[str, Any], _out: Any) -> int:
        long, short, count, width = _mat(args)
        return round(flops(long, short, width)) * count

    return cost


def _svd(args: Arguments, kwargs: Mapping[str, Any], _out: Any) -> int:
    long, short, count, _ = _mat((args[0],))
    vectors = kwargs.get("compute_uv", len(args) < 3 or args[2])
    each = 6 * long * short**2 + 20 * short**3 if vectors else 4 * long * short**2 - 4 * short**3 / 3
    return round(each) * count


def _qr(args: Arguments, kwargs: Mapping[str, Any], _out: Any) -> int:
    long, short, count, _ = _mat((args[0],))
    only_r = kwargs.get("mode", args[1] if len(args) > 1 else "reduced") == "r"
    return round((1 if only_r else 2) * (2 * long * short**2 - 2 * short**3 / 3)) * count


def _fourier(flops: float) -> Rule:
    def cost(args: Arguments, _kwargs: Mapping[str, Any], out: Any) -> int:
        size = max(_numel(args[0]), _numel(out))
        lengths = [max(args[0].shape[dim], out.shape[dim]) for dim in args[1]]
        return round(flops * size * sum(map(_log2, lengths)))

    return cost


def _recurrent(per_weight: int) -> Rule:
    """A layer of an LSTM: 4 gates, of which 3 are sigmoids, and 2 hyperbolic tangents, for each row."""

    def cost(args: Arguments, _kwargs: Mapping[str, Any], _out: Any) -> int:
        x, *weights = args[:3]
        rows = x.numel() // x.shape[-1]
        return rows * (per_weight * _numel(weights) + (5 * cost_model.TRANSCENDENTAL + 12) * weights[1].shape[-1])

    return cost


def _attention(args: Arguments, _kwargs: Mapping[str, Any], _out: Any) -> int:
    q, k, v = args[:3]
    scores = q.shape[:-1].numel() * k.shape[-2]
    return scores * (2 * q.shape[-1] + 2 * v.shape[-1] + cost_model.SOFTMAX)


def _sparse(args: Arguments, _kwargs: Mapping[str, Any], out: Any) -> int:
    """2 for each stored number of a sparse matrix and column of the other; twice as many if both are sparse."""
    matrices = [each for each in args if isinstance(each, Tensor) and each.dim() == 2][-2:]
    stored = next(each for each in matrices if each.layout != strided)
    return 2 * stored._nnz() * out.shape[-1]


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
    **dict.fromkeys(("_fft_r2c", "_fft_c2r"), _fourier(2.5)),
    "_fft_c2c": _fourier(5.0),
    **dict.fromkeys(
        ("linalg_cholesky", "linalg_cholesky_ex", "linalg_ldl_factor_ex"), _per_matrix(lambda n, *_: n**3 / 3)
    ),
    **dict.fromkeys(
        ("_linalg_det", "_linalg_slogdet", "linalg_lu", "linalg_lu_factor_ex"),
        _per_matrix(lambda m, n, _: m * n**2 - n**3 / 3),
    ),
    "_linalg_eigvals": _per_matrix(lambda n, *_: 10 * n**3),
    "_linalg_solve_ex": _per_matrix(lambda n, _, r: 2 * n**3 / 3 + 2 * n**2 * r),
    "_linalg_svd": _svd,
    **dict.fromkeys(("_sparse_addmm", "_sparse_mm", "_sparse_sparse_matmul", "sspaddmm"), _sparse),
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_linalg_eigh": lambda args, *_: 9 * args[0].shape[-1] * _numel(args[0]),
    "_pdist_forward": lambda args, _, out: (3 * args[0].shape[-1] + 1) * _numel(out),
    "addmv": lambda args, *_: 2 * _numel(args[1]) + _numel(args[0]),
    "bucketize": lambda args, _, out: _log2(_numel(args[1])) * _numel(out),
    "index_add": lambda args, *_: _numel(args[3]),
    "cholesky_inverse": _per_matrix(lambda n, *_: 2 * n**3 / 3),
    "cholesky_solve": lambda args, *_: 2 * args[1].shape[-1] * _numel(args[0]),
    "linalg_eig": _per_matrix(lambda n, *_: 25 * n**3),
    "linalg_householder_product": _per_matrix(lambda m, n, _: 2 * m * n**2 - 2 * n**3 / 3),
    "linalg_inv_ex": _per_matrix(lambda n, *_: 2 * n**3),
    "linalg_lstsq": _per_matrix(lambda m, n, r: 2 * m * n**2 - 2 * n**3 / 3 + (4 * m * n - n**2) * r),
    "linalg_lu_solve": lambda args, *_: 2 * args[0].shape[-1] * _numel(args[2]),
    "linalg_qr": _qr,
    "mkldnn_rnn_layer": _recurrent(2),
    "mkldnn_rnn_layer_backward": _recurrent(4),
    "linalg_solve_triangular": lambda args, *_: args[0].shape[-1] * _numel(args[1]),
    "multinomial": _multinomial,
    "pow": _power,
    "scatter_add": lambda args, *_: _numel(args[3]),
    "searchsorted": lambda args, _, out: _log2(args[0].shape[-1]) * _numel(out),
}


@dataclass(frozen=True)
class _Operator:
    """An operator: its name, its cost rule (None if it is free), and what a complex number costs in it.

    One that the cost model does not list is not listed; if it is made of others, these are counted instead.
    """

    name: str
    cost: Rule | None
    complex: int = 1
    listed: bool = True
    composite: bool = False


@functools.cache
def _look_up(function: Any) -> _Operator:
    name = function._schema.name.removeprefix("aten::")
    base = name.removeprefix("_foreach_").removesuffix("_")
    if base in cost_model.FREE:
        return _Operator(name, None)
    if function.overloadpacket in flop_registry:
        return _Operator(name, _product(function.overloadpacket, extra="add" in name), cost_model.COMPLEX_PRODUCT)
    if base in cost_model.SORTS:
        return _Operator(name, _sorting(function))
    if base in RULES:
        return _Operator(name, RULES[base], cost_model.COMPLEX.get(base, cost_model.COMPLEX_OTHER))
    return _Operator(name, _per_result(cost_model.UNLISTED), listed=False, composite=function._can_decompose())


def _is_complex(args: Arguments) -> bool:
    return any(isinstance(each, Tensor) and each.is_complex() for each in args)


class _Counting(TorchDispatchMode):
    def __init__(self, ledger: CountingLedger):
        super().__init__()
        self.ledger = ledger

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _look_up(func).composite:  # under inference_mode these arrive whole
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
            start = perf_counter()
            self._run_new((name,), alone)
            self.overhead_s += perf_counter() - start

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
        operator = _look_up(function)
        if operator.cost is None:
            return
        flops = operator.cost(args, kwargs, out) * (operator.complex if _is_complex(args) else 1)
        self._current.flops += flops
        self._flops += flops
        if self._current is self._other:
            self._other.calls += 1
        if not operator.listed:
            self.unlisted.add(operator.name)

    def __deepcopy__(self, memo: dict[int, Any]) -> CountingLedger:
        """The ledger itself, so that a copy of a watched network is watched by the same ledger."""
        return self

"""The cost of fitting: FLOPs of every operator that torch runs, charges for other work, and network passes.

Cost model, in FLOPs: a matrix product of m x k by k x n is 2 m k n; an elementwise operation 1 per element of its
result, 10 if transcendental (exp, log, tanh, a normal draw); a reduction 1 per element read; a softmax 13 per
element; pairwise distances 3 D per pair; a sort n log2 n; a triangular solve one multiply-add per entry; an Adam
update 15 per parameter. Moving, copying and filling memory is free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

T = TypeVar("T")

TRANSCENDENTAL = 10.0
SOFTMAX = 13.0
ADAM = 15.0


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


FREE = _names(
    """
    _local_scalar_dense _reshape_alias _to_copy _unsafe_view alias arange as_strided cat clone contiguous copy
    copy_ detach diagonal empty empty_like empty_strided expand eye fill fill_ flatten full full_like gather
    index index_put index_put_ index_select is_same_size lift_fresh linspace logspace masked_fill masked_fill_
    new_empty new_empty_strided new_full new_ones new_zeros ones ones_like permute pin_memory repeat
    repeat_interleave reshape resize_ roll scalar_tensor scatter scatter_ select select_backward set_ slice
    slice_backward split split_with_sizes squeeze stack t transpose tril tril_ triu triu_ unbind unfold
    unsafe_split unsqueeze unsqueeze_ view where zero_ zeros zeros_like
    """
)
COSTLY = _names(
    """
    acos asin atan cos cosh elu erf erfc erfinv exp exp2 expm1 gelu gelu_backward log log10 log1p log2
    log_normal_ logit mish normal normal_ normal_functional pow randn randn_like reciprocal rsqrt sigmoid silu
    silu_backward sin sinh softplus special_log_ndtr special_ndtr special_ndtri sqrt tan tanh
    """
)
REDUCTIONS = _names(
    """
    all amax amin aminmax any argmax argmin cumsum linalg_vector_norm max mean min norm prod std sum var
    """
)
SORTS = _names(
    """
    argsort msort multinomial randperm sort topk unique
    """
)


def operator_flops(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> float:
    """FLOPs of one call of a torch operator, by the cost model above."""
    name = function._schema.name.removeprefix("aten::")
    if name in FREE or name.removesuffix("_") in FREE:
        return 0.0
    if function.overloadpacket in flop_registry:
        products = float(flop_registry[function.overloadpacket](*args, **kwargs, out_val=out))
        return products + (_numel(out) if "add" in name else 0.0)
    return SPECIAL[name](args, out) if name in SPECIAL else _by_class(name, args, out)


def _by_class(name: str, args: tuple[Any, ...], out: Any) -> float:
    base = name.removesuffix("_")
    if base in SORTS:
        n = _numel(args[:1]) or _numel(out)
        return n * math.log2(max(n, 2.0))
    if base in REDUCTIONS:
        return _numel(args[:1])
    if base == "logsumexp" or "softmax" in base:
        return SOFTMAX * _numel(args[:1])
    return (TRANSCENDENTAL if base in COSTLY else 1.0) * _numel(out)


def _distance(args: tuple[Any, ...], out: Any) -> float:
    return 3.0 * _numel(out) * args[0].shape[-1]


SPECIAL: dict[str, Callable[[tuple[Any, ...], Any], float]] = {
    "_cdist_forward": _distance,
    "_cdist_backward": _distance,
    "_euclidean_dist": _distance,
    "_fused_adam_": lambda args, _: ADAM * _numel(args[0]),
    "dot": lambda args, _: 2.0 * _numel(args[:1]),
    "mv": lambda args, _: 2.0 * _numel(args[:1]),
    "addmv": lambda args, _: 2.0 * _numel(args[1:2]) + _numel(args[:1]),
    "linalg_solve_triangular": lambda args, _: float(args[0].shape[-1]) * _numel(args[1:2]),
}


def _numel(values: Any) -> float:
    if isinstance(values, Tensor):
        return float(values.numel())
    if isinstance(values, Iterable) and not isinstance(values, str):
        return sum(_numel(value) for value in values)
    return 0.0


class _Counting(TorchDispatchMode):
    def __init__(self, ledger: CountingLedger):
        super().__init__()
        self.ledger = ledger

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.ledger.flops += operator_flops(func, args, kwargs or {}, out)
        return out


class CountingLedger:
    """Counts what happens between `start` and `stop`, and nothing else.

    Operators are counted one by one as they run, but for work under `run`, which is so counted the first time that
    its name meets the shapes of its arguments, and is then known, so that repeating it runs at full speed.
    """

    def __init__(self) -> None:
        self.flops = 0.0
        self.decoder_passes = 0
        self.encoder_passes = 0
        self.active = False
        self._known: dict[tuple[Any, ...], float] = {}
        self._within_known = False
        self._mode = _Counting(self)

    def start(self) -> None:
        """Begin to count."""
        self.active = True
        self._mode.__enter__()

    def stop(self) -> None:
        """Cease to count."""
        self._mode.__exit__(None, None, None)
        self.active = False

    def run(self, name: str, work: Callable[..., T], *args: Any) -> T:
        """work(*args), whose operators depend only on `name` and the shapes of its arguments."""
        if self._within_known or not self.active:
            return work(*args)
        key = (name, *(a.shape if isinstance(a, Tensor) else None for a in args))
        if key not in self._known:
            before = self.flops
            result = work(*args)
            self._known[key] = self.flops - before
            return result
        self._within_known = True
        self._mode.__exit__(None, None, None)
        try:
            return work(*args)
        finally:
            self._mode.__enter__()
            self._within_known = False
            self.flops += self._known[key]

    def charge(self, name: str, flops: float) -> None:  # noqa: ARG002
        """Add the FLOPs of work that torch does not see."""
        if self.active and not self._within_known:
            self.flops += flops

    def watch(self, *, decoder: nn.Module | None = None, encoder: nn.Module | None = None) -> None:
        """Count the rows that pass forward through a network while the ledger counts."""
        if decoder is not None:
            decoder.register_forward_pre_hook(self._decoder_rows)
        if encoder is not None:
            encoder.register_forward_pre_hook(self._encoder_rows)

    def _decoder_rows(self, _module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if self.active:
            self.decoder_passes += args[0].shape[:-1].numel()

    def _encoder_rows(self, _module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if self.active:
            self.encoder_passes += args[0].shape[:-1].numel()

    def __deepcopy__(self, memo: dict[int, Any]) -> CountingLedger:
        """A copied network is still watched by the one ledger."""
        return self

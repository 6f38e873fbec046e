"""What one operator of torch costs, by the rules of `bench.fit.cost_model`, from its arguments and its result."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, strided
from torch.utils.flop_counter import flop_registry

from bench.fit import cost_model

Arguments = tuple[Any, ...]
Rule = Callable[[Arguments, Mapping[str, Any], Any], int]

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
class Operator:
    """An operator: its name, its cost rule (None if it is free), and what a complex number costs in it.

    One that the cost model does not list is not listed; if it is made of others, these are counted instead.
    """

    name: str
    cost: Rule | None
    complex: int = 1
    listed: bool = True
    composite: bool = False

    def flops(self, args: Arguments, kwargs: Mapping[str, Any], out: Any) -> int:
        """The FLOPs of a call with these arguments and this result."""
        if self.cost is None:
            return 0
        is_complex = any(isinstance(each, Tensor) and each.is_complex() for each in args)
        return self.cost(args, kwargs, out) * (self.complex if is_complex else 1)


@functools.cache
def look_up(function: Any) -> Operator:
    """The operator that an overload of torch's is one of."""
    name = function._schema.name.removeprefix("aten::")
    base = name.removeprefix("_foreach_").removesuffix("_")
    if base in cost_model.FREE:
        return Operator(name, None)
    if function.overloadpacket in flop_registry:
        return Operator(name, _product(function.overloadpacket, extra="add" in name), cost_model.COMPLEX_PRODUCT)
    if base in cost_model.SORTS:
        return Operator(name, _sorting(function))
    if base in RULES:
        return Operator(name, RULES[base], cost_model.COMPLEX.get(base, cost_model.COMPLEX_OTHER))
    return Operator(name, _per_result(cost_model.UNLISTED), listed=False, composite=function._can_decompose())

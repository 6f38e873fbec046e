"""The cost model: the FLOPs of each operator of torch, as data. It does not import torch, so that listing is instant.

One FLOP is one arithmetic instruction on one number: add, multiply, divide, compare, square root. An operator of many
instructions costs their number. A transcendental function and a random draw cost 10 each, roughly their number of
instructions. Moving memory is free. Names are torch's, without a trailing underscore and without `_foreach_`.
"""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

TRANSCENDENTAL = 10
DRAW = 10
SOFTMAX = 13
UNLISTED = 1
COMPLEX_PRODUCT = 4  # a product and a sum of complex numbers are 4 real ones of each
COMPLEX_OTHER = 6  # a product is 4 products and 2 sums


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _each(flops: int, text: str) -> dict[str, int]:
    return dict.fromkeys(text.split(), flops)


FREE = _names(
    """
    _conj _linalg_check_errors _neg_view imag is_nonzero numpy_T real resolve_conj resolve_neg
    view_as_complex view_as_real
    _local_scalar_dense _reshape_alias _to_copy _unsafe_view alias arange as_strided cat clone
    constant_pad_nd contiguous copy detach diag_embed diagonal diagonal_backward empty empty_like empty_permuted
    empty_strided expand eye fill fill_diagonal flatten flip full full_like gather index index_select is_same_size lift
    lift_fresh linspace logspace masked_select new_empty new_empty_strided new_full new_ones new_zeros nonzero ones
    ones_like permute pin_memory profiler::_record_function_enter_new profiler::_record_function_exit repeat
    repeat_interleave reshape resize roll scalar_tensor scatter select select_backward select_scatter set slice
    slice_backward slice_scatter split split_with_sizes squeeze stack t transpose tril tril_indices triu triu_indices
    unbind unfold unsafe_split unsafe_split_with_sizes unsqueeze view zero zeros zeros_like
    """
)
PER_RESULT: dict[str, int] = {
    **_each(
        1,
        """
        abs bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp clamp_max clamp_min div eq floor floor_divide
        fmod frac ge gt isfinite isinf isnan le logical_and logical_not logical_or logical_xor lt masked_fill maximum
        minimum mul ne neg reciprocal relu remainder round rsqrt sgn sign sqrt threshold threshold_backward trunc
        where
        """,
    ),
    **_each(2, "hardtanh leaky_relu leaky_relu_backward"),
    **_each(3, "addcdiv addcmul hardtanh_backward lerp sigmoid_backward tanh_backward"),
    **_each(
        TRANSCENDENTAL,
        """
        acos acosh asin asinh atan atan2 atanh cos cosh digamma erf erfc erfinv exp exp2 expm1 lgamma log log10 log1p
        log2 sigmoid sin sinh special_erfcx special_log_ndtr special_ndtri tan tanh xlogy
        """,
    ),
    **_each(TRANSCENDENTAL + 1, "silu"),
    **_each(TRANSCENDENTAL + 2, "elu elu_backward logit"),
    **_each(TRANSCENDENTAL + 3, "softplus_backward"),
    **_each(TRANSCENDENTAL + 4, "gelu log_sigmoid_backward"),
    **_each(TRANSCENDENTAL + 5, "silu_backward"),
    **_each(2 * TRANSCENDENTAL + 1, "softplus"),
    **_each(2 * TRANSCENDENTAL + 2, "log_sigmoid_forward"),
    **_each(2 * TRANSCENDENTAL + 4, "logaddexp"),
    **_each(2 * TRANSCENDENTAL + 7, "gelu_backward"),
}
PER_DRAW: dict[str, int] = _each(
    DRAW,
    """
    bernoulli cauchy exponential geometric log_normal normal normal_functional rand rand_like randint randint_like randn
    randn_like random randperm uniform
    """,
)
PER_READ: dict[str, int] = {
    **_each(1, "_is_all_true all amax amin aminmax any argmax argmin count_nonzero cummax cummin cumprod cumsum"),
    **_each(1, "bincount equal max mean min nansum prod sum trace"),
    **_each(2, "linalg_vector_norm norm"),
    **_each(8, "_native_batch_norm_legit native_batch_norm native_group_norm native_layer_norm"),
    **_each(15, "native_batch_norm_backward native_group_norm_backward native_layer_norm_backward"),
    **_each(4, "_softmax_backward_data std std_mean var var_mean"),
    **_each(SOFTMAX, "_log_softmax _log_softmax_backward_data _softmax logcumsumexp logsumexp"),
}
PER_PARAMETER: dict[str, int] = {"_fused_adam": 13, "_fused_adamw": 15}
COMPLEX: dict[str, int] = {
    **_each(1, "_fft_c2c _fft_c2r _fft_r2c"),
    **_each(2, "add mean neg rsub sub sum"),
    **_each(
        COMPLEX_PRODUCT,
        """
        _linalg_det _linalg_eigh _linalg_eigvals _linalg_slogdet _linalg_solve_ex _linalg_svd addmv cholesky_inverse
        cholesky_solve dot linalg_cholesky_ex linalg_eig linalg_householder_product linalg_inv_ex linalg_ldl_factor_ex
        linalg_lstsq linalg_lu linalg_lu_factor_ex linalg_lu_solve linalg_qr linalg_solve_triangular mv vdot
        """,
    ),
}
SORTS = _names("_unique2 argsort kthvalue median mode msort nanmedian sort topk unique_dim")

PRODUCTS = "mm, bmm, convolutions, attention", "2 m k n", "product of m x k by k x n"
FORMULAS: dict[str, tuple[str, str]] = {
    "add, sub, rsub": ("1, or 2 with a factor alpha", "element of the result"),
    "pow": ("as many products as a whole or half power up to 3 takes; 10 for any other", "element of the result"),
    "addmm, baddbmm": ("2 m k n + m n", "product of m x k by k x n, added to another matrix"),
    "mv, dot, vdot": ("2", "element of the matrix or the vector"),
    "addmv": ("2 m k + m", "product of m x k by k, added to another vector"),
    "_euclidean_dist": ("2 D + 6, and 3 D for each point", "pair of points in D dimensions, from matrix products"),
    "_cdist_forward, _pdist_forward": ("3 D + 1", "pair of points in D dimensions"),
    "_cdist_backward": ("4 D", "pair of points in D dimensions"),
    "_linalg_eigh": ("9 n^3, eigenvectors included", "symmetric n x n"),
    "linalg_cholesky, linalg_cholesky_ex, linalg_ldl_factor_ex": ("n^3 / 3", "symmetric n x n"),
    "_linalg_det, _linalg_slogdet, linalg_lu, linalg_lu_factor_ex": ("m n^2 - n^3 / 3", "m x n, m >= n"),
    "cholesky_inverse": ("2 n^3 / 3", "n x n"),
    "linalg_inv_ex": ("2 n^3", "n x n"),
    "_linalg_solve_ex": ("2 n^3 / 3 + 2 n^2 r", "n x n with r right-hand sides"),
    "cholesky_solve, linalg_lu_solve": ("2 n^2 r", "n x n with r right-hand sides"),
    "linalg_lstsq": ("2 m n^2 - 2 n^3 / 3 + (4 m n - n^2) r", "m x n with r right-hand sides"),
    "linalg_qr": ("4 m n^2 - 4 n^3 / 3; half of it without Q", "m x n, m >= n"),
    "linalg_householder_product": ("2 m n^2 - 2 n^3 / 3", "m x n"),
    "_linalg_svd": ("6 m n^2 + 20 n^3; 4 m n^2 - 4 n^3 / 3 without vectors", "m x n, m >= n"),
    "linalg_eig, _linalg_eigvals": ("25 n^3, 10 n^3", "n x n"),
    "_fft_c2c, _fft_r2c, _fft_c2r": ("5 log2 n, and half of it for real numbers", "number of a transform of length n"),
    "_scaled_dot_product_flash_attention_for_cpu": ("2 (d + e) + 13", "pair of a query and a key, of d and e numbers"),
    "mkldnn_rnn_layer": ("2 for each weight, and 62 for each state", "row and step of a layer of an LSTM"),
    "mkldnn_rnn_layer_backward": ("4 for each weight, and 62 for each state", "row and step of a layer of an LSTM"),
    "_sparse_addmm, _sparse_mm, _sparse_sparse_matmul, sspaddmm": ("2", "stored number and column of the result"),
    "linalg_solve_triangular": ("n^2 (n^2 / 2 multiply-adds)", "right-hand side of n x n"),
    "index_put, _index_put_impl": ("1 if it accumulates, else 0", "value put"),
    "index_add, scatter_add": ("1", "value added"),
    "searchsorted, bucketize": ("log2 n, rounded up", "value sought among n"),
    "multinomial": (
        "2 for each of n weights, and 10 + log2 n; one draw, or draws without replacement: 12 for each weight",
        "draw",
    ),
}


class OperatorCost(NamedTuple):
    """The cost of some operators.

    Args:
        operators: Their names, separated by commas.
        flops: Their FLOPs, as a number or a formula.
        per: What the FLOPs are per, such as an element of the result.
    """

    operators: str
    flops: str
    per: str


def cost_table() -> list[OperatorCost]:
    """The whole cost model in words: cheapest operators first, formulas last."""
    return [
        OperatorCost(", ".join(sorted(FREE)), "0", "call"),
        *_rows(PER_RESULT, "element of the result"),
        *_rows(PER_DRAW, "draw"),
        *_rows(PER_READ, "element read"),
        *_rows(PER_PARAMETER, "parameter"),
        OperatorCost(", ".join(sorted(SORTS)), "n log2 n, rounded up", "row of n"),
        OperatorCost(*PRODUCTS),
        *(OperatorCost(names, *formula) for names, formula in FORMULAS.items()),
        OperatorCost("any other operator", str(UNLISTED), "element of the result"),
    ]


def _rows(costs: dict[str, int], per: str) -> list[OperatorCost]:
    by_cost = groupby(sorted(costs, key=lambda name: (costs[name], name)), costs.__getitem__)
    return [OperatorCost(", ".join(names), str(flops), per) for flops, names in by_cost]

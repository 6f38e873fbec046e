"""The FLOPs of whole layers and of linear algebra, by formulas written down here, whatever mode they are called in."""

import math
import subprocess
import sys
import threading
import warnings
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import methods
from bench.fit.flop_counter import CountingLedger
from bench.fit.runner import run_one
from methods.common.posteriors import Prior
from methods.contract.method import Fitted, Method

N, D, H = 100, 30, 40
X, W, B = torch.randn(N, D), torch.randn(H, D), torch.randn(H)
S = torch.randn(H, H)
P = S @ S.T + H * torch.eye(H)
Q = torch.randn(2, 4, 16, 8)
STEPS, BATCH, IN, OUT = 10, 5, 16, 32
SEQUENCE, STATES = torch.randn(STEPS, BATCH, IN), torch.randn(STEPS, BATCH, OUT)
LSTM, GRU, ATTENTION = nn.LSTM(IN, OUT), nn.GRU(IN, OUT), nn.MultiheadAttention(OUT, 4)
ROWS = STEPS * BATCH
DENSE, SPARSE = torch.randn(200, 50), torch.eye(200).to_sparse()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the compressed format is in beta state
    COMPRESSED = torch.eye(200).to_sparse_csr()
COMPLEX = torch.randn(50, 50, dtype=torch.complex64)
WORK = {
    "linear": (lambda: F.linear(X, W, B), 2 * N * D * H + N * H),
    "einsum": (lambda: torch.einsum("ij,kj->ik", X, W), 2 * N * D * H),
    "matmul": (lambda: X @ W.T, 2 * N * D * H),
    "chain": (lambda: torch.linalg.multi_dot([X, W.T, S]), 2 * N * D * H + 2 * D * H * H),
    "softmax": (lambda: F.softmax(X, 1), 13 * N * D),
    "gru": (lambda: GRU(SEQUENCE), 2 * ROWS * 3 * OUT * (IN + OUT)),
    "lstm": (lambda: LSTM(SEQUENCE), 2 * ROWS * 4 * OUT * (IN + OUT) + 62 * ROWS * OUT),
    "attention": (lambda: F.scaled_dot_product_attention(Q, Q, Q), 8 * 16 * 16 * (4 * 8 + 13)),
    "multihead": (lambda: ATTENTION(STATES, STATES, STATES), 2 * ROWS * 4 * OUT**2 + BATCH * STEPS**2 * 4 * OUT),
    "cholesky": (lambda: torch.linalg.cholesky(P), H**3 / 3),
    "determinant": (lambda: torch.linalg.slogdet(P), 2 * H**3 / 3),
    "solve": (lambda: torch.linalg.solve(P, S), 2 * H**3 / 3 + 2 * H**3),
    "cholesky-solve": (lambda: torch.cholesky_solve(S, P), 2 * H**3),
    "inverse": (lambda: torch.linalg.inv(P), 2 * H**3),
    "qr": (lambda: torch.linalg.qr(W), 4 * (H * D**2 - D**3 / 3)),
    "svd": (lambda: torch.linalg.svd(W), 6 * H * D**2 + 20 * D**3),
    "eigh": (lambda: torch.linalg.eigh(P), 9 * H**3),
    "eig": (lambda: torch.linalg.eig(S), 25 * H**3),
    "sparse": (lambda: torch.sparse.mm(SPARSE, DENSE), 2 * 200 * 50),
    "compressed": (lambda: COMPRESSED @ DENSE, 2 * 200 * 50),
    "complex-product": (lambda: COMPLEX @ COMPLEX, 8 * 50**3),
    "complex-sum": (lambda: COMPLEX + COMPLEX, 2 * 50**2),
    "fourier": (lambda: torch.fft.fft(COMPLEX), 50 * 5 * 50 * 6),
    "vmap": (lambda: torch.func.vmap(lambda row: W @ row)(X), 2 * N * D * H),
    "compiled": (torch.compile(lambda: torch.tanh(X @ W.T), backend="eager"), 2 * N * D * H + 10 * N * H),
}
OFTEN_WITHOUT = ("gru", "multihead")  # beside their products, of which the formulas here are
MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


def counted(work, mode=torch.no_grad):
    ledger = CountingLedger()
    ledger.start()
    try:
        with mode():
            work()
    finally:
        ledger.stop()
    return ledger


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", WORK)
def test_work_is_counted_within_a_twentieth(name, mode):
    work, expected = WORK[name]
    ledger = counted(work, MODES[mode])
    more = 0.2 if name in OFTEN_WITHOUT else 0.05
    assert expected * 0.95 <= ledger.flops <= expected * (1 + more)
    assert ledger.unlisted == set()


def test_weighting_a_batch_costs_the_same_in_every_mode():
    """A fit under inference_mode was charged a quarter of the same fit under no_grad."""
    net = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 2))
    by_mode = {mode: counted(lambda: torch.logsumexp(net(torch.ones(50, 100, 2)), 0), MODES[mode]) for mode in MODES}
    assert by_mode["no_grad"].flops == by_mode["inference_mode"].flops > 50 * 100 * 4 * 128


def test_decomposing_changes_no_value():
    def work():
        return ATTENTION(STATES, STATES, STATES)[0], torch.einsum("ij,kj->ik", X, W), F.linear(X, W, B)

    kept = []
    with torch.inference_mode():
        plain = work()
    counted(lambda: kept.extend(work()), torch.inference_mode)
    assert all(torch.equal(one, other) for one, other in zip(plain, kept, strict=True))


@pytest.mark.parametrize("flops", [-1.0, -1e12, math.nan, math.inf, -math.inf])
def test_charges_are_finite_and_not_negative(flops):
    ledger = CountingLedger()
    ledger.start()
    try:
        with pytest.raises(ValueError, match=r"ledger\.charge\('refund'\) needs FLOPs from 0 to infinity"):
            ledger.charge("refund", flops)
    finally:
        ledger.stop()
    assert ledger.flops == 0


@torch.library.custom_op("mapa_bench_tests::product", mutates_args=())
def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A product of which torch's dispatcher sees only the name."""
    return a @ b


@pytest.mark.parametrize(
    ("work", "name"),
    [(lambda: product(X, W.T), "mapa_bench_tests::product"), (lambda: torch.linalg.matrix_exp(S), "linalg_matrix_exp")],
)
def test_work_of_unknown_cost_is_named(work, name):
    assert counted(work).unlisted == {name}


@dataclass(frozen=True)
class Walks(Method):
    """Yields three times, and works before each."""

    def fit(self, task):
        for _ in range(3):
            self.work()
            task.ledger.charge("step", 1e3)
            yield Fitted(task.model, Prior(task.latent_dim))

    def work(self):
        raise NotImplementedError


@dataclass(frozen=True)
class Custom(Walks):
    """Does work of unknown cost."""

    def work(self):
        product(X, W.T)


@dataclass(frozen=True)
class Threads(Walks):
    """Lets another thread work."""

    def work(self):
        thread = threading.Thread(target=lambda: [S @ S for _ in range(3000)])
        thread.start()
        thread.join()


@dataclass(frozen=True)
class Forks(Walks):
    """Lets another process work."""

    def work(self):
        subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)


@dataclass(frozen=True)
class Refund(Walks):
    """Charges less than nothing."""

    def fit(self, task):
        task.ledger.charge("refund", -1e12)
        yield from super().fit(task)


@pytest.mark.parametrize(
    ("method", "notes"),
    [
        (Custom, "FLOPs not known of: mapa_bench_tests::product"),
        (Threads, "FLOPs not counted: other threads or processes used"),
        (Forks, "FLOPs not counted: other threads or processes used"),
    ],
)
def test_the_row_of_a_run_names_work_that_is_not_counted(run_spec, offer, method, notes):
    result = run_one(run_spec(method=offer("walks", method()), scored_on="validation"))
    assert result.status == "done", result.message
    assert result.notes.startswith(notes)


def test_a_refund_fails_the_run(run_spec, offer):
    result = run_one(run_spec(method=offer("refund", Refund()), scored_on="validation"))
    assert (result.status, result.message.partition(" (")[0]) == (
        "failed",
        "ValueError: ledger.charge('refund') needs FLOPs from 0 to infinity, got -1000000000000.0",
    )


@pytest.mark.parametrize("name", methods.BUILTIN)
@pytest.mark.parametrize("dataset", ["circle", "s_curve"])
def test_all_work_of_the_built_in_methods_is_of_known_cost(run_spec, name, dataset):
    result = run_one(run_spec(method=name, dataset=dataset, n_train=40, max_flops=2e7, scored_on="validation"))
    assert result.status == "done", result.message
    assert "FLOPs not" not in result.notes

"""FLOPs and passes against hand counts, and the memo of `run` against counting everything."""

import collections
import copy
from itertools import islice

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import flop_registry

from bench import cell, cost
from bench.cost import CountingLedger
from bench.registry import registry
from datasets.base import draw

# Operators that are meant to cost one operation per element of their result.
ELEMENTWISE = {
    *("_foreach_add_", "_is_all_true", "abs", "add", "add_", "clamp", "div", "eq", "floor", "floor_divide", "gt"),
    *("mul", "neg", "remainder", "sign", "sub", "tanh_backward", "uniform_"),
}
BOOKKEEPING = {"profiler::_record_function_enter_new", "profiler::_record_function_exit"}


def flops(work, *args):
    """What a ledger counts for work(*args)."""
    ledger = CountingLedger()
    ledger.start()
    try:
        work(*args)
    finally:
        ledger.stop()
    return ledger.flops


def full(*shape, dtype=torch.float32):
    return torch.full(shape, 0.5, dtype=dtype)


SQUARE, LONG = full(16, 16), full(4, 64)


OPERATORS = {
    "mm": (lambda: full(3, 5) @ full(5, 7), 2 * 3 * 5 * 7),
    "bmm": (lambda: torch.bmm(full(2, 3, 5), full(2, 5, 7)), 2 * 2 * 3 * 5 * 7),
    "mv": (lambda: full(3, 5) @ full(5), 2 * 3 * 5),
    "dot": (lambda: full(5) @ full(5), 2 * 5),
    "addmm": (lambda: torch.addmm(full(7), full(3, 5), full(5, 7)), 2 * 3 * 5 * 7 + 3 * 7),
    "addmv": (lambda: torch.addmv(full(3), full(3, 5), full(5)), 2 * 3 * 5 + 3),
    "add": (lambda: SQUARE + SQUARE, 256),
    "mul, broadcast": (lambda: SQUARE * full(16), 256),
    "exp": (SQUARE.exp, 10 * 256),
    "tanh": (SQUARE.tanh, 10 * 256),
    "randn": (lambda: torch.randn(10, 10), 10 * 100),
    "sum": (LONG.sum, 256),
    "mean of rows": (lambda: LONG.mean(1), 256),
    "amax": (lambda: LONG.amax(0), 256),
    "max with indices": (lambda: LONG.max(1), 256),
    "softmax": (lambda: LONG.softmax(1), 13 * 256),
    "log_softmax": (lambda: LONG.log_softmax(1), 13 * 256),
    "logsumexp": (lambda: torch.logsumexp(LONG, 1), 13 * 256),
    "cdist by products": (lambda: torch.cdist(full(30, 3), full(40, 3)), 3 * 3 * 30 * 40),
    "cdist": (lambda: torch.cdist(full(5, 3), full(4, 3)), 3 * 3 * 5 * 4),
    "triangular solve": (lambda: torch.linalg.solve_triangular(SQUARE, full(16, 2), upper=True), 16 * 16 * 2),
    "views": (lambda: LONG.T.reshape(8, 32)[2:5].clone().permute(1, 0), 0),
    "filling": (lambda: torch.zeros(100).fill_(1), 0),
    "cat": (lambda: torch.cat([LONG, LONG]), 0),
    "to float64": (LONG.double, 0),
    "sort": (lambda: full(64).sort(), 64 * 6),
    "argsort": (lambda: full(64).argsort(), 64 * 6),
    "topk": (lambda: full(64).topk(3), 64 * 6),
    "randperm": (lambda: torch.randperm(64), 64 * 6),
}


@pytest.mark.parametrize(("work", "expected"), OPERATORS.values(), ids=OPERATORS)
def test_an_operator_costs_what_the_model_says(work, expected):
    assert flops(work) == expected


def test_forward_and_backward_of_a_linear_layer():
    layer, x = nn.Linear(5, 7), full(3, 5)
    assert flops(layer, x) == 2 * 3 * 5 * 7 + 3 * 7
    gradient = torch.ones(3, 7)
    out = layer(x)
    # The input needs no gradient; weight: one product; bias: a sum over the batch.
    assert flops(out.backward, gradient) == 2 * 3 * 5 * 7 + 3 * 7


def test_forward_and_backward_of_a_network():
    n, d, h, k = 11, 2, 8, 3
    network = nn.Sequential(nn.Linear(d, h), nn.Tanh(), nn.Linear(h, k))
    x = full(n, d)
    forward = 2 * n * d * h + n * h + 10 * n * h + 2 * n * h * k + n * k
    assert flops(network, x) == forward
    out = network(x)
    backward = (2 * n * h * k) + (2 * n * h * k) + n * k + n * h + (2 * n * d * h) + n * h
    assert flops(out.backward, torch.ones(n, k)) == backward


def test_an_update_of_adam():
    parameter = nn.Parameter(full(100))
    parameter.grad = full(100)
    optimiser = torch.optim.Adam([parameter], fused=True)
    assert flops(optimiser.step) == 15 * 100


def test_random_walks_through_the_ledger_never_lower_it():
    ledger, seen = CountingLedger(), []
    for size in (3, 0, 7):
        ledger.start()
        ledger.run("step", torch.exp, full(size))
        seen.append(ledger.flops)
        ledger.charge("other", 2.0)
        seen.append(ledger.flops)
        ledger.stop()
    assert seen == sorted(seen)
    assert seen[-1] == 10 * 10 + 6


def drive(spec, steps, ledger):
    """Run a method for some steps with all its work counted: FLOPs, passes, and steps done."""
    known = registry()
    method, problem = known.make_method(spec.method), known.make_problem(spec.dataset, None)
    split = draw(problem, spec.seed, spec.size, spec.validation_size, 1)
    fit = method.fit(cell._task(method, problem, split, spec, ledger))
    ledger.start()
    try:
        done = sum(1 for _ in islice(fit, steps))
    finally:
        ledger.stop()
    return ledger.flops, ledger.decoder_passes, ledger.encoder_passes, done


class Thorough(CountingLedger):
    """Counts everything, operator by operator."""

    def run(self, name, work, *args):
        return work(*args)


@pytest.mark.parametrize(
    ("method", "dataset", "size", "noise"),
    [
        ("vae", "circle", 40, "known"),
        ("vae", "s_curve", 250, "learned"),
        ("iterative", "circle", 40, "known"),
        ("iterative", "circle", 250, "known"),
        ("iterative", "circle", 40, "learned"),
        ("mapa", "circle", 40, "known"),
        ("mapa", "circle", 40, "learned"),
        ("mapa", "s_curve", 40, "known"),
        ("oracle", "circle", 40, "known"),
    ],
)
def test_the_memo_counts_what_counting_everything_does(cell_spec, method, dataset, size, noise):
    spec = cell_spec(method=method, dataset=dataset, size=size, validation_size=size, noise=noise)
    assert drive(spec, 120, CountingLedger()) == drive(spec, 120, Thorough())


def test_the_memo_tells_names_and_shapes_apart():
    ledger = CountingLedger()
    ledger.start()
    for name, size in (("a", 5), ("b", 5), ("a", 7), ("a", 5)):
        before = ledger.flops
        ledger.run(name, torch.exp if name == "a" else torch.neg, full(size))
        assert ledger.flops - before == (10 if name == "a" else 1) * size
    ledger.stop()


def test_known_work_within_other_work_is_counted_once():
    ledger = CountingLedger()

    def outer(x):
        return ledger.run("inner", torch.exp, x).neg()

    ledger.start()
    totals = []
    for _ in range(3):
        ledger.run("outer", outer, full(4))
        totals.append(ledger.flops)
    ledger.run("inner", torch.exp, full(4))
    ledger.stop()
    assert totals == [44, 88, 132]
    assert ledger.flops == 172


def test_a_charge_within_known_work_is_counted_once():
    ledger = CountingLedger()

    def work(x):
        ledger.charge("other", 100.0)
        return x.neg()

    ledger.start()
    for _ in range(3):
        ledger.run("work", work, full(4))
    ledger.stop()
    assert ledger.flops == 3 * 104


def test_nothing_counts_while_stopped():
    ledger = CountingLedger()
    network = nn.Linear(2, 2)
    ledger.watch(decoder=network, encoder=network)
    for _ in range(2):
        ledger.run("work", torch.exp, full(9))
        ledger.charge("other", 5.0)
        network(full(3, 2))
        full(9).exp()
    assert (ledger.flops, ledger.decoder_passes, ledger.encoder_passes) == (0.0, 0, 0)


def test_counting_goes_on_after_work_that_fails():
    ledger = CountingLedger()

    def fail(x):
        x.neg()
        raise ArithmeticError

    ledger.start()
    for _ in range(2):
        with pytest.raises(ArithmeticError):
            ledger.run("fail", fail, full(4))
    ledger.run("good", torch.neg, full(4))
    ledger.run("good", torch.neg, full(4))
    full(4).neg()
    ledger.stop()
    assert ledger.flops == 5 * 4


def test_a_failure_of_known_work_leaves_the_ledger_counting():
    ledger, healthy = CountingLedger(), [True]

    def work(x):
        x.neg()
        if not healthy[0]:
            raise ArithmeticError

    ledger.start()
    ledger.run("work", work, full(4))
    healthy[0] = False
    with pytest.raises(ArithmeticError):
        ledger.run("work", work, full(4))
    full(6).neg()
    ledger.stop()
    full(6).neg()
    assert ledger.flops == 4 + 4 + 6


def test_passes_are_rows_put_forward():
    ledger = CountingLedger()
    decoder, encoder = nn.Linear(2, 3), nn.Linear(3, 2)
    ledger.watch(decoder=decoder)
    ledger.watch(encoder=encoder)
    ledger.start()
    for _ in range(2):
        ledger.run("step", lambda: encoder(decoder(full(5, 4, 2))).sum().backward())
    encoder(full(7, 3))
    ledger.stop()
    decoder(full(100, 2))
    assert (ledger.decoder_passes, ledger.encoder_passes) == (40, 47)


def test_a_copy_of_a_network_is_watched_by_the_same_ledger():
    ledger, decoder = CountingLedger(), nn.Linear(2, 3)
    ledger.watch(decoder=decoder)
    ledger.start()
    copy.deepcopy(decoder)(full(5, 2))
    ledger.stop()
    assert ledger.decoder_passes == 5


def test_every_operator_that_built_in_methods_use_is_placed_deliberately(cell_spec, monkeypatch):
    used = collections.defaultdict(set)

    def look(function, args, kwargs, out, plain=cost.operator_flops):
        name = function._schema.name.removeprefix("aten::")
        base = name.removesuffix("_")
        placed = (
            {name, base} & cost.FREE
            or function.overloadpacket in flop_registry
            or name in cost.SPECIAL
            or base in cost.SORTS | cost.REDUCTIONS | cost.COSTLY
            or base == "logsumexp"
            or "softmax" in base
        )
        if not placed:
            used[name].add(method)
        return plain(function, args, kwargs, out)

    monkeypatch.setattr(cost, "operator_flops", look)
    for noise in ("known", "learned"):
        for dataset in ("circle", "s_curve", "pinwheel"):
            for method in ("mapa", "vae", "iterative", "oracle", "untrained"):
                drive(cell_spec(method=method, dataset=dataset, noise=noise, size=30), 40, CountingLedger())
    assert used
    assert {name: methods for name, methods in used.items() if name not in ELEMENTWISE | BOOKKEEPING} == {}

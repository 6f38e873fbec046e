"""FLOPs and passes against hand counts, and the memo of `run` against counting everything."""

import copy
import dataclasses
import math
import time
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from bench.fit import cost_model, operators
from bench.fit.cost_model import cost_table
from bench.fit.flop_counter import CountingLedger
from bench.fit.task import make_task
from bench.registry.registry import registry
from bench.store.records import Work
from datasets.base import draw


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
TRUE = torch.ones(16, 16, dtype=torch.bool)


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
    "rand": (lambda: torch.rand(10, 10), 10 * 100),
    "uniform in place": (lambda: full(100).uniform_(), 10 * 100),
    "square": (SQUARE.square, 256),
    "cube": (lambda: SQUARE**3, 2 * 256),
    "square root as a power": (lambda: SQUARE**0.5, 256),
    "power": (lambda: SQUARE**2.5, 10 * 256),
    "power of tensors": (lambda: SQUARE**SQUARE, 10 * 256),
    "sqrt": (SQUARE.sqrt, 256),
    "where": (lambda: torch.where(TRUE, SQUARE, SQUARE), 256),
    "add with a factor": (lambda: torch.add(SQUARE, SQUARE, alpha=3), 2 * 256),
    "a list of tensors in place": (lambda: torch._foreach_mul_([full(5), full(3)], 2.0), 8),
    "silu": (lambda: nn.functional.silu(SQUARE), 11 * 256),
    "norm": (LONG.norm, 2 * 256),
    "variance": (lambda: LONG.var(0), 4 * 256),
    "sum": (LONG.sum, 256),
    "mean of rows": (lambda: LONG.mean(1), 256),
    "amax": (lambda: LONG.amax(0), 256),
    "max with indices": (lambda: LONG.max(1), 256),
    "softmax": (lambda: LONG.softmax(1), 13 * 256),
    "log_softmax": (lambda: LONG.log_softmax(1), 13 * 256),
    "logsumexp": (lambda: torch.logsumexp(LONG, 1), 13 * 256),
    "cdist by products": (lambda: torch.cdist(full(30, 3), full(40, 3)), (2 * 3 + 6) * 30 * 40 + 3 * 3 * 70),
    "cdist": (lambda: torch.cdist(full(5, 3), full(4, 3)), (3 * 3 + 1) * 5 * 4),
    "triangular solve": (lambda: torch.linalg.solve_triangular(SQUARE, full(16, 2), upper=True), 16 * 16 * 2),
    "views": (lambda: LONG.T.reshape(8, 32)[2:5].clone().permute(1, 0), 0),
    "filling": (lambda: torch.zeros(100).fill_(1), 0),
    "cat": (lambda: torch.cat([LONG, LONG]), 0),
    "to float64": (LONG.double, 0),
    "sort": (lambda: full(64).sort(), 64 * 6),
    "argsort": (lambda: full(64).argsort(), 64 * 6),
    "topk": (lambda: full(64).topk(3), 64 * 6),
    "sort of rows": (lambda: full(10, 64).sort(), 10 * 64 * 6),
    "sort of columns": (lambda: full(10, 64).sort(0), 10 * 64 * 4),
    "stable sort of columns": (lambda: full(10, 64).sort(stable=True, dim=0), 10 * 64 * 4),
    "median of all": (lambda: full(10, 64).median(), 640 * 10),
    "unique": (lambda: full(10, 64).unique(), 640 * 10),
    "sort of a number": (lambda: torch.tensor(1.0).sort(), 0),
    "search": (lambda: torch.searchsorted(full(64), full(5)), 5 * 6),
    "bucketize": (lambda: torch.bucketize(full(5), full(64)), 5 * 6),
    "randperm": (lambda: torch.randperm(64), 10 * 64),
    "multinomial": (lambda: torch.multinomial(full(3, 64), 7, replacement=True), 2 * 3 * 64 + 3 * 7 * 16),
    "multinomial, one draw": (lambda: torch.multinomial(full(3, 64), 1), 12 * 3 * 64),
    "adding at indices": (lambda: full(9).index_put_((torch.tensor([1, 2]),), full(2), accumulate=True), 2),
    "putting at indices": (lambda: full(9).index_put_((torch.tensor([1, 2]),), full(2)), 0),
    "index_add": (lambda: full(9).index_add(0, torch.tensor([1, 2]), full(2)), 2),
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
    backward = (2 * n * h * k) + (2 * n * h * k) + n * k + 3 * n * h + (2 * n * d * h) + n * h
    assert flops(out.backward, torch.ones(n, k)) == backward


def adam_update(**options):
    parameter = nn.Parameter(full(100))
    parameter.grad = full(100)
    optimiser = torch.optim.Adam([parameter], **options)
    optimiser.step()
    return flops(optimiser.step) - 1  # the count of steps


def test_an_update_of_adam():
    """As a fused kernel it costs what it does step by step: two running means and a scaled step."""
    assert adam_update(fused=True) == adam_update(foreach=True) == adam_update(foreach=False) == 13 * 100


@pytest.mark.parametrize(
    ("activation", "forward", "backward"),
    [(nn.Tanh(), 10, 3), (nn.Sigmoid(), 10, 3), (nn.SiLU(), 11, 15), (nn.ReLU(), 1, 1), (nn.GELU(), 14, 27)],
)
def test_an_activation_and_its_derivative(activation, forward, backward):
    x = full(50).requires_grad_()
    assert flops(activation, x) == forward * 50
    assert flops(activation(x).backward, torch.ones(50)) == backward * 50


def test_the_derivative_of_distances():
    x, y = full(5, 3).requires_grad_(), torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    assert flops(torch.cdist(x, y).backward, torch.ones(5, 4)) == 4 * 3 * 5 * 4


def test_an_operator_outside_the_cost_model_costs_one_per_result_and_is_remembered():
    ledger = CountingLedger()
    ledger.start()
    torch.heaviside(SQUARE, SQUARE)
    SQUARE.exp()
    ledger.stop()
    assert ledger.flops == 256 + 10 * 256
    assert ledger.unlisted == {"heaviside"}


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 100, 1024, 1025])
def test_logarithms_are_rounded_up(n):
    assert operators._log2(n) == math.ceil(math.log2(n))


def test_the_cost_model_states_every_operator_once():
    stated = [name for row in cost_table() for name in row.operators.split(", ")]
    assert len(stated) == len(set(stated))
    assert set(stated) >= {*cost_model.FREE, *cost_model.SORTS, *operators.RULES}
    assert {row.operators: row.flops for row in cost_table()}["silu"] == "11"


def test_the_cost_model_names_operators_that_torch_has():
    """The cost of a misspelt operator would never be charged."""
    names = {name.removeprefix("aten::") for name in torch._C._dispatch_get_all_op_names()}
    known = {name.partition(".")[0].removeprefix("_foreach_").removesuffix("_") for name in names}
    listed = cost_model.FREE | cost_model.SORTS | operators.RULES.keys()
    assert {name for name in listed if name not in known and not name.startswith("profiler::")} == set()


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


# Few steps, in which each method still comes to every kind of work that it has, most of them more than once.
BRIEF = {
    "steps": 8,
    "trial_steps": 2,
    "replacements": 1,
    "polish_steps": 2,
    "noise_rounds": 2,
    "most_inner": 3,
    "window": 2,
}
YIELDS = 30


def drive(spec, ledger):
    """Run a method, at few steps, with all its work counted: FLOPs by name, passes, and the number of yields."""
    known = registry()
    method, problem = known.make_method(spec.method), known.make_problem(spec.dataset, None)
    brief = {field.name: BRIEF[field.name] for field in dataclasses.fields(method) if field.name in BRIEF}
    method = dataclasses.replace(method, **brief)
    split = draw(problem, spec.seed, spec.n_train, spec.n_train, 1)
    fit = method.fit(make_task(method, problem, split, spec, ledger))
    ledger.start()
    try:
        done = sum(1 for _ in islice(fit, YIELDS))
    finally:
        ledger.stop()
    return sorted(ledger.account(), key=str), ledger.passes, done


class Thorough(CountingLedger):
    """Counts everything, operator by operator."""

    def run(self, name, work, *args):
        self._known.clear()
        return super().run(name, work, *args)


@pytest.fixture(scope="module", params=registry().methods)
def method(request):
    return request.param


@pytest.fixture(scope="module", params=["known", "learned"])
def noise(request):
    return request.param


@pytest.fixture(scope="module", params=[("circle", 31), ("s_curve", 24)], ids=["circle", "s_curve"])
def counts(request, run_spec, method, noise):
    """The ledger after a brief run of a method, and what was counted with the memo and without."""
    dataset, size = request.param
    spec = run_spec(method=method, dataset=dataset, n_train=size, observation_noise=noise)
    ledger = CountingLedger()
    return ledger, drive(spec, ledger), drive(spec, Thorough())


def test_the_memo_counts_what_counting_everything_does(counts):
    _, memoised, thorough = counts
    assert memoised == thorough


def test_the_account_of_a_method_adds_up_exactly(counts):
    ledger, (account, _, _), _ = counts
    assert sum(work.flops for work in account) == ledger.flops
    assert all(work.flops == int(work.flops) >= 0 and work.calls > 0 for work in account)
    assert sum(work.flops for work in account if work.by == "formula") == ledger.formula_flops


def test_every_operator_that_a_method_uses_is_listed(counts):
    assert counts[0].unlisted == set()


def test_the_account_tells_work_by_name_and_by_how_it_was_counted():
    ledger = CountingLedger()

    def inner(x):
        ledger.charge("library", 5.4)
        return x.exp()

    def outer(x):
        return ledger.run("inner", inner, x.neg())

    ledger.start()
    for _ in range(3):
        ledger.run("outer", outer, full(4))
        full(4) + 1
    ledger.charge("library", 0.6)
    ledger.stop()
    assert sorted(ledger.account(), key=str) == [
        Work("inner", 3, 120.0, "operators"),
        Work("library", 4, 16.0, "formula"),
        Work("other operators", 3, 12.0, "operators"),
        Work("outer", 3, 12.0, "operators"),
    ]
    assert (ledger.flops, ledger.formula_flops) == (160.0, 16.0)


def test_a_ledger_that_saw_nothing_has_an_empty_account():
    ledger = CountingLedger()
    assert (ledger.account(), ledger.flops, ledger.formula_flops, ledger.unlisted) == ([], 0.0, 0.0, set())


def test_the_account_of_random_work_adds_up_exactly():
    ledger, rng = CountingLedger(), np.random.default_rng(0)
    for _ in range(200):
        ledger.start()
        ledger.run(str(rng.integers(5)), torch.exp, full(int(rng.integers(4))))
        ledger.charge(str(rng.integers(5)), float(rng.uniform(0, 1e12)))
        full(3).neg()
        ledger.stop()
    account = ledger.account()
    assert sum(work.flops for work in rng.permutation(account)) == ledger.flops
    assert sum(work.calls for work in account) == 600


def test_counting_times_itself_and_not_the_work():
    ledger = CountingLedger()

    def work(x):
        time.sleep(0.05)
        return x.neg()

    ledger.start()
    start = time.perf_counter()
    for _ in range(3):
        ledger.run("work", work, full(4))
        full(4).neg()
    passed = time.perf_counter() - start
    ledger.stop()
    assert 0 < ledger.overhead_s < passed - 3 * 0.05


def test_the_time_of_work_that_is_repeated_is_taken_off_once():
    ledger = CountingLedger()
    ledger.start()
    start = time.perf_counter()
    ledger.repeat("step", lambda: [full(4).neg() for _ in range(200)])
    passed = time.perf_counter() - start
    ledger.stop()
    assert 0 < ledger.overhead_s <= passed


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


def test_known_work_runs_without_a_dispatch_mode():
    """Under one, each of its operators would take several times as long."""
    ledger, modes = CountingLedger(), []

    def inner(x):
        modes.append(_get_current_dispatch_mode_stack())
        return x.neg()

    def outer(x):
        modes.append(_get_current_dispatch_mode_stack())
        return ledger.run("inner", inner, x)

    ledger.start()
    for _ in range(3):
        ledger.run("outer", outer, full(4))
    ledger.stop()
    assert modes[:2] == [[ledger._mode]] * 2
    assert modes[2:] == [[]] * 4


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


def test_passes_are_rows_through_a_network():
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


def test_a_copy_of_a_watched_network_has_weights_of_its_own():
    ledger, network = CountingLedger(), nn.Sequential(nn.Linear(2, 3))
    ledger.watch(decoder=network)
    before = network(full(1, 2))
    copied = copy.deepcopy(network)
    with torch.no_grad():
        copied[0].weight.zero_()
        copied[0].bias.zero_()
    assert copied(full(1, 2)).eq(0).all()
    assert network(full(1, 2)).equal(before)
    assert network.state_dict().keys() == copied.state_dict().keys() == {"0.weight", "0.bias"}

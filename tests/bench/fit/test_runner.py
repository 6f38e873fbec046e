"""One run: what the clock covers, where the checkpoints lie, when a budget ends it, and what becomes of a failure."""

import dataclasses
import functools
import json
import math
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import msgspec
import pytest
import torch

from bench import metrics
from bench.fit.block import CHECKPOINTS_PER_DECADE
from bench.fit.runner import run_one
from bench.fit.task import make_task
from bench.metrics import ais, evaluator, nuts, shared
from bench.registry.registry import registry
from bench.store import run_files
from bench.store.records import Cost
from datasets.base import draw
from methods.common.posteriors import Prior
from methods.contract.method import Fitted, Method, NullLedger

METRICS = ["test_ll", "oracle_gap", "elbo", "inference_gap", "mutual_information", "active_units", "kl_to_prior"]
LAST_METRICS = ["approximation_gap", "amortisation_gap", "signal_w2", "sample_w2", "sample_w2_floor"]


once = functools.cache(run_one)  # a run that several tests look at


@pytest.fixture
def run_spec(run_spec):
    """A run on few points, at a seed at which no plots are recorded, with the fields given changed."""
    return lambda **fields: run_spec(**{"seed": 1, "n_test": 10, **fields})


@pytest.fixture
def checkpoints_alone(monkeypatch):
    """Measure nothing at the end of a run, which takes most of its time, where only checkpoints are looked at."""
    monkeypatch.setattr(metrics.Evaluator, "evaluate_final", lambda *_: [])


@dataclass(frozen=True)
class Walk(Method):
    """Moves the decoder's last bias at each step, at a charge, and may sleep, print, end or break on the way."""

    steps: int = 5
    charge: float = 1000.0
    sleep: float = 0.0
    print: str = ""

    def fit(self, task):
        bias = task.model.network[-1].bias.data.numpy()  # numpy, so that torch counts nothing
        for step in range(self.steps):
            time.sleep(self.sleep)
            if self.print:
                print(self.print)  # noqa: T201 - the harness has to bear it
            bias += 0.01
            task.ledger.charge("walk", self.charge)
            self.before_yield(step, task)
            yield Fitted(task.model, Prior(task.latent_dim))

    def before_yield(self, step, task):
        pass


def checkpoints(result):
    """(cost, values by metric) of each checkpoint, in order."""
    rows = [(number, list(rows)) for number, rows in groupby(result.rows, lambda row: row.checkpoint)]
    assert [number for number, _ in rows] == list(range(len(rows)))
    for _, each in rows:
        assert [row.metric for row in each][: len(METRICS)] == METRICS
        assert len({row.cost for row in each}) == 1
        assert len(each) == len(METRICS) or each is rows[-1][1]
    return [(each[0].cost, {row.metric: row.value for row in each[: len(METRICS)]}) for _, each in rows]


def test_a_run_is_reproducible(run_spec):
    spec = run_spec(seed=0, max_flops=1e7)
    first, second = once(spec), run_one(spec)
    assert first.status == "done"
    assert [(row.metric, row.value, row.stderr) for row in first.rows] == [
        (row.metric, row.value, row.stderr) for row in second.rows
    ]


def test_the_clock_runs_while_the_method_does(run_spec, offer):
    offer("sleepy", Walk(steps=4, sleep=0.05))
    cost = run_one(run_spec(method="sleepy")).cost
    assert cost.wall_s >= 4 * 0.05
    assert cost.cpu_s < 0.1


def test_work_before_the_first_yield_is_on_the_clock(run_spec, offer):
    class Eager(Walk):
        def fit(self, task):
            time.sleep(0.2)
            task.ledger.charge("eager", 7.0)
            return iter([Fitted(task.model, Prior(task.latent_dim))])

    offer("eager", Eager())
    cost = run_one(run_spec(method="eager")).cost
    assert cost.wall_s >= 0.2
    assert cost.flops == 7


def test_processor_time_is_that_of_all_threads_and_of_children(run_spec, offer):
    class Busy(Walk):
        def before_yield(self, step, task):
            spin = "import time; t = time.process_time()\nwhile time.process_time() - t < 0.1: pass"
            thread = threading.Thread(target=exec, args=(spin.replace("process_time", "thread_time"), {}))
            thread.start()
            thread.join()
            subprocess.run([sys.executable, "-c", spin], check=True)

    offer("busy", Busy(steps=1))
    assert run_one(run_spec(method="busy", max_seconds=0.1)).cost.cpu_s >= 0.2


def test_where_the_flops_went_adds_up(run_spec, checkpoints_alone):
    result = run_one(run_spec(method="mapa", n_train=30, max_flops=1e7))
    assert sum(work.flops for work in result.work) == result.cost.flops
    assert sum(work.flops for work in result.work if work.by == "formula") == result.formula_flops > 0
    assert {"k-means", "loss"} <= {work.name for work in result.work}


def test_memory_is_that_of_fitting(run_spec, offer, monkeypatch):
    class Hungry(Walk):
        def before_yield(self, step, task):
            if step == 2:
                torch.ones(30_000_000).sum()

    def greedy(self, fitted, draws, evaluate=metrics.Evaluator.evaluate_checkpoint):
        torch.ones(90_000_000).sum()
        return evaluate(self, fitted, draws)

    monkeypatch.setattr(metrics.Evaluator, "evaluate_checkpoint", greedy)
    offer("hungry", Hungry())
    assert run_one(run_spec(method="hungry")).peak_memory_mb == pytest.approx(120, rel=0.1)


def test_diagnostics_are_kept_with_their_checkpoint(run_spec):
    result = once(run_spec(seed=0, max_flops=1e7))
    found = [(d.checkpoint, d.metric, d.diagnostic) for d in result.diagnostics]
    assert found == [(row.checkpoint, "test_ll", "numerical_error") for row in result.rows if row.metric == "test_ll"]
    assert len(found) > 1
    assert all(0 <= d.value < 1e-3 for d in result.diagnostics)


def test_above_two_latent_dimensions_all_is_measured_by_sampling(run_spec, monkeypatch):
    monkeypatch.setattr(evaluator, "NUTS_POINTS", 2)
    monkeypatch.setattr(nuts, "WARM_UP", 50)
    monkeypatch.setattr(nuts, "DRAWS", (70,))
    monkeypatch.setattr(ais, "TEMPERATURES", 20)
    monkeypatch.setattr(shared, "_computed", shared._computed.__wrapped__)  # as others are not to share it
    result = run_one(run_spec(dataset="linear_gaussian", latent_dim=3, max_flops=1e6))
    assert result.status == "done"
    last = {row.metric: row for row in result.rows if row.checkpoint == result.rows[-1].checkpoint}
    assert set(last) == {*METRICS, *LAST_METRICS, "annealing_gap"}
    assert last["oracle_gap"].value > -3 * last["oracle_gap"].stderr
    assert last["inference_gap"].value > -3 * last["inference_gap"].stderr
    assert len(result.references) == 2 * 256
    diagnostics = {(d.metric, d.diagnostic) for d in result.diagnostics}
    assert {("test_ll", "khat_median"), ("signal_w2", "rhat_max")} <= diagnostics
    shown = {name for metric, name in diagnostics if metric == "annealing_gap"}
    assert shown == {"ess_median_forward", "ess_median_backward", "khat_forward", "khat_backward"}


def test_mapa_skips_more_latent_dimensions_than_points_can_be_embedded_in(run_spec):
    result = run_one(run_spec(method="mapa", dataset="linear_gaussian", latent_dim=3, n_train=3))
    message = "mapa embeds in fewer dimensions than there are coordinates (4) and data (3)"
    assert (result.status, result.message) == ("skipped", message)


def test_the_clock_stands_while_the_harness_works(run_spec, offer, monkeypatch):
    offer("brisk", Walk(steps=4, charge=1e6))
    evaluated = []

    def slowly(score):
        def slow(self, fitted, *draws):
            evaluated.append(fitted)
            time.sleep(0.2)
            return score(self, fitted, *draws)

        return slow

    for name in ("evaluate_checkpoint", "evaluate_final"):
        monkeypatch.setattr(metrics.Evaluator, name, slowly(getattr(metrics.Evaluator, name)))
    result = run_one(run_spec(method="brisk"))
    assert len(evaluated) >= 3
    assert result.cost.wall_s < 0.1
    assert result.evaluation_s >= 0.2 * len(evaluated)


IMPORTS_ON_THE_CLOCK = """
import json, sys
from bench.fit import block, runner
from bench.store.records import RunSpec
import msgspec
from bench.metrics import Evaluator
Evaluator.evaluate_final = lambda *_: []  # it comes after the clock, and takes long
advance, new = block.Block._advance, []
def watched(self):
    before = set(sys.modules)
    found = advance(self)
    new.extend(set(sys.modules) - before)
    return found
block.Block._advance = watched
specs = msgspec.json.decode(sys.argv[1], type=list[RunSpec])
statuses = [runner.run_one(spec).status for spec in specs]
print(json.dumps([statuses, sorted(new)]))
"""


@pytest.mark.parametrize("runs", [[("vae", "circle", 1), ("mapa", "circle", 1), ("mapa", "s_curve", 1)],
                                  [("vae", "circle", 3)]])  # fmt: skip
def test_nothing_is_imported_on_the_clock(run_spec, runs):
    specs = [run_spec(method=method, dataset=dataset, block=size, max_flops=1e6) for method, dataset, size in runs]
    command = [sys.executable, "-c", IMPORTS_ON_THE_CLOCK, msgspec.json.encode(specs)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout.splitlines()[-1]) == [["done"] * len(runs), []]


@pytest.mark.parametrize("method", ["vae", "mapa", "iterative"])
def test_checkpoints_lie_on_the_grid_and_costs_never_fall(run_spec, checkpoints_alone, method):
    result = run_one(run_spec(method=method, n_train=100, max_flops=3e8))
    reached = [cost for cost, _ in checkpoints(result)]
    assert len(reached) > 3
    for field in dataclasses.fields(Cost):
        spent = [getattr(cost, field.name) for cost in reached]
        assert spent == sorted(spent)
    slots = [math.floor(CHECKPOINTS_PER_DECADE * math.log10(cost.flops)) for cost in reached]
    assert all(first < second for first, second in pairwise(slots[:-1]))
    assert slots[-2] <= slots[-1]
    assert reached[-1] == result.cost


def test_checkpoints_miss_no_mark_of_the_grid(run_spec, checkpoints_alone, offer):
    offer("steady", Walk(steps=1000, charge=1000.0))
    spent = [cost.flops for cost, _ in checkpoints(run_one(run_spec(method="steady", n_train=10, n_test=10)))]
    marks = [10 ** (3 + k / CHECKPOINTS_PER_DECADE) for k in range(1, 3 * CHECKPOINTS_PER_DECADE)]
    assert spent == [1000.0, *(1000.0 * math.ceil(mark / 1000) for mark in marks), 1e6]


@pytest.mark.parametrize("charge", [0.0, 1.0, 1e6])
def test_the_last_state_is_always_scored(run_spec, offer, charge):
    offer("walk", Walk(steps=7, charge=charge))
    result = run_one(run_spec(method="walk"))
    reached = checkpoints(result)
    known = registry()
    spec = run_spec()
    problem = known.make_problem("circle", None)
    split = draw(problem, spec.seed, spec.n_train, spec.n_train, spec.n_test)
    task = make_task(Walk(), problem, split, spec, NullLedger())
    *_, fitted = Walk(steps=7).fit(task)
    scorer = metrics.Evaluator(problem, split, spec.seed)
    assert reached[-1][1] == {m.metric: m.value for m in scorer.evaluate_checkpoint(fitted, metrics.LAST_DRAWS)}
    assert [(row.metric, row.value) for row in result.rows[-5:]] == [
        (m.metric, m.value) for m in scorer.evaluate_final(fitted)
    ]
    assert [row.metric for row in result.rows[-5:]] == LAST_METRICS


def test_work_after_the_last_yield_is_charged_and_scored(run_spec, offer):
    class Afterthought(Walk):
        def fit(self, task):
            yield from super().fit(task)
            task.model.network[-1].bias.data.add_(1.0)
            task.ledger.charge("afterthought", 5.0)

    offer("late", Afterthought(steps=1, charge=10.0))
    offer("prompt", Walk(steps=1, charge=10.0))
    late, prompt = (run_one(run_spec(method=name)) for name in ("late", "prompt"))
    assert late.cost.flops > 15
    assert [cost.flops for cost, _ in checkpoints(late)] == [10.0, late.cost.flops]
    assert len(checkpoints(prompt)) == 1
    assert checkpoints(late)[-1][1] != checkpoints(prompt)[-1][1]


@pytest.mark.parametrize("method", ["vae", "iterative"])
def test_a_budget_of_flops_stops_within_a_step(run_spec, checkpoints_alone, method):
    spec = run_spec(method=method)
    one = run_one(msgspec.structs.replace(spec, max_flops=1.0)).cost.flops
    result = run_one(msgspec.structs.replace(spec, max_flops=20.5 * one))
    assert 20.5 * one <= result.cost.flops <= 21.5 * one
    assert result.overrun_flops == result.cost.flops - 20.5 * one
    assert result.overrun_s == 0
    assert (result.status, result.stopped_by) == ("done", "max_flops")
    assert result.message.startswith("stopped by --max-flops at ")


def test_a_budget_of_seconds_stops_within_a_step(run_spec, offer):
    offer("sleepy", Walk(steps=1000, sleep=0.02))
    result = run_one(run_spec(method="sleepy", max_seconds=0.1))
    assert result.cost.wall_s >= 0.1
    assert result.cost.flops <= 1000 * 0.1 / 0.02
    assert result.overrun_s == result.cost.wall_s - 0.1
    assert (result.status, result.stopped_by) == ("done", "max_seconds")
    assert result.message.startswith("stopped by --max-seconds after ")
    assert checkpoints(result)[-1][0] == result.cost


def test_a_method_that_ends_by_itself_has_no_message(run_spec, offer):
    offer("walk", Walk())
    result = run_one(run_spec(method="walk", max_flops=1e12, max_seconds=1e6))
    assert (result.status, result.message, result.stopped_by) == ("done", "", "")
    assert (result.overrun_flops, result.overrun_s) == (0, 0)


class Breaks(Walk):
    def before_yield(self, step, task):
        if step == 3:
            raise ArithmeticError("the sky\n  fell")


class BreaksAtOnce(Walk):
    def before_yield(self, step, task):
        raise ArithmeticError


class Exits(Walk):
    def before_yield(self, step, task):
        if step == 3:
            sys.exit("enough")


class YieldsNothing(Walk):
    def fit(self, task):
        yield from ()


class ReturnsNothing(Walk):
    def fit(self, task):
        return None


class LacksBase(Walk):
    def fit(self, task):
        yield Fitted(task.model, object())


class YieldsRubbish(Walk):
    def fit(self, task):
        yield "rubbish"


class NanDecoder(Walk):
    def before_yield(self, step, task):
        if step == 3:
            task.model.network[-1].bias.data.fill_(math.nan)


class NanPosterior(Walk):
    def fit(self, task):
        class Lost(Prior):
            def sample(self, x, count, generator):
                z, log_q = super().sample(x, count, generator)
                return z, log_q * math.nan

        yield Fitted(task.model, Lost(task.latent_dim))


@pytest.mark.parametrize(
    ("broken", "message", "checked"),
    [
        (Breaks, "ArithmeticError: the sky fell", 3),
        (BreaksAtOnce, "ArithmeticError", 0),
        (Exits, "SystemExit: enough", 3),
        (YieldsNothing, "RuntimeError: fit ended without yielding a fitted model", 0),
        (ReturnsNothing, "TypeError", 0),
        (YieldsRubbish, "AttributeError", 0),
        (LacksBase, "TypeError: Fitted.posterior must be a methods.contract.method.Posterior, got object", 0),
        (NanDecoder, "NotFiniteError: the decoder gives values that are not finite", 3),
        (NanPosterior, "NotFiniteError: elbo is nan", 0),
    ],
)
def test_a_failure_has_a_message_and_keeps_earlier_checkpoints(run_spec, offer, broken, message, checked):
    class Tenfold(broken):
        def fit(self, task):
            charge = task.ledger.charge
            return super().fit(dataclasses.replace(task, ledger=Growing(charge)))

    offer("broken", Tenfold(charge=1.0))
    result = run_one(run_spec(method="broken"))
    assert result.status == "failed"
    assert result.message.startswith(message)
    assert "\n" not in result.message
    assert len(checkpoints(result)) == checked
    if checked:
        assert result.cost.flops >= 10 ** (checked - 1)
        assert result.cost.wall_s > 0


class Growing:
    """A ledger on which each charge is ten times the one before, so that every step is a checkpoint."""

    def __init__(self, charge):
        self.plain, self.next = charge, 1.0

    def charge(self, name, flops):
        self.plain(name, self.next)
        self.next *= 10


def test_a_method_may_decline(run_spec, offer):
    class Choosy(Walk):
        def skip(self, latent_dim, data_dim, n_train):
            return f"not for L = {latent_dim}, D = {data_dim}, N = {n_train}" if data_dim == 2 else None

    offer("choosy", Choosy())
    result = run_one(run_spec(method="choosy"))
    assert (result.status, result.message) == ("skipped", "not for L = 1, D = 2, N = 40")
    assert (result.rows, result.cost) == ([], Cost())
    assert run_one(run_spec(method="choosy", dataset="s_curve", n_train=10, n_test=10)).status == "done"


def test_what_a_method_prints_is_dropped(run_spec, offer, capsys):
    offer("chatty", Walk(print="step"))
    assert run_one(run_spec(method="chatty")).status == "done"
    assert capsys.readouterr() == ("", "")


def test_hyperparameters_are_recorded(run_spec, offer):
    offer("walk", Walk(steps=3))
    assert run_one(run_spec(method="walk")).parameters == {"steps": 3, "charge": 1000.0, "sleep": 0.0, "print": ""}


def test_a_hyperparameter_of_any_kind_can_be_stored(run_spec, offer, tmp_path):
    @dataclass(frozen=True)
    class Odd(Walk):
        hidden: tuple = (64, 64)
        place: Path = Path("here")
        layer: type = torch.nn.Tanh
        none: None = None

    (tmp_path / "runs").mkdir()
    spec = run_spec(method=offer("odd", Odd()))
    run_files.write_run(tmp_path, run_one(spec))
    kept = run_files.read_run(tmp_path, spec).parameters
    assert (kept["hidden"], kept["place"], kept["none"]) == ("(64, 64)", "here", None)
    assert "Tanh" in kept["layer"]


def task_of(method, spec):
    known = registry()
    problem = known.make_problem(spec.dataset, spec.latent_dim)
    split = draw(problem, spec.seed, spec.n_train, spec.n_train, spec.n_test)
    return make_task(known.make_method(method), problem, split, spec, NullLedger())


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


def test_methods_at_a_seed_begin_alike(run_spec):
    tasks = [task_of(method, run_spec(seed=3)) for method in ("mapa", "vae", "iterative", "untrained")]
    draws = torch.rand(3, generator=tasks[0].generator)
    for task in tasks[1:]:
        assert same(task.model.state_dict(), tasks[0].model.state_dict())
        assert torch.equal(task.train, tasks[0].train)
        assert torch.equal(task.validation, tasks[0].validation)
        assert torch.equal(torch.rand(3, generator=task.generator), draws)


def test_seeds_differ_in_data_weights_and_draws(run_spec):
    first, second = (task_of("vae", run_spec(seed=seed)) for seed in (0, 1))
    assert not torch.equal(first.train, second.train)
    assert not torch.equal(first.model.network[0].weight, second.model.network[0].weight)
    assert not torch.equal(torch.rand(3, generator=first.generator), torch.rand(3, generator=second.generator))


def test_the_data_given_keep_the_test_set_apart(run_spec):
    task = task_of("vae", run_spec())
    test = draw(registry().make_problem("circle", None), 1, 40, 40, 10).test
    seen = torch.cat([task.train, task.validation])
    assert torch.cdist(seen.double(), test).min() > 1e-6


def test_only_a_reference_sees_the_truth(run_spec):
    assert task_of("oracle", run_spec()).truth is not None
    assert all(task_of(method, run_spec()).truth is None for method in ("mapa", "vae", "iterative", "untrained"))


@pytest.mark.parametrize("noise", ["known", "learned"])
def test_noise_is_given_or_learned(run_spec, noise):
    model = task_of("vae", run_spec(observation_noise=noise)).model
    assert model.learns_noise == (noise == "learned")
    assert (abs(model.variance() - 0.01) < 1e-8) == (noise == "known")


def test_what_is_drawn_is_recorded_at_the_first_seed_alone(run_spec):
    result, other = (run_one(run_spec(seed=seed, method="oracle")) for seed in (0, 1))
    assert (other.densities, other.posteriors, other.signals) == ([], [], [])
    assert {name for name, *_ in result.densities} == {"truth", "oracle"}
    assert len(result.densities) == 2 * evaluator.GRID_POINTS**2
    assert all(math.isfinite(value) for point in result.densities for value in point[1:])
    last = {row.metric: row.value for row in result.rows}
    assert last["index_kl_floor"] == pytest.approx(last["index_kl"], rel=1e-4)
    assert {row[0] for row in result.posteriors} == {"truth", "floor", "oracle"}
    floor, oracle = ([row[1:] for row in result.posteriors if row[0] == name] for name in ("floor", "oracle"))
    assert [row[:4] for row in floor] == [row[:4] for row in oracle]
    assert [row[4] for row in floor] == pytest.approx([row[4] for row in oracle], abs=1e-5)
    truth, oracle = ([row[1:] for row in result.signals if row[0] == name] for name in ("truth", "oracle"))
    assert len(truth) == 4 * 64
    assert truth == oracle


def test_densities_are_for_the_plane(run_spec):
    result = run_one(run_spec(seed=0, method="untrained", dataset="s_curve", n_train=10))
    assert result.status == "done"
    assert result.densities == []


def test_a_result_survives_being_stored(run_spec, tmp_path):
    (tmp_path / "runs").mkdir()
    spec = run_spec(seed=0, max_flops=1e7)
    result = once(spec)
    run_files.write_run(tmp_path, result)
    assert run_files.read_run(tmp_path, spec) == result

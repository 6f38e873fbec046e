"""What a running study tells: each run, what leads, how many failed, and how long is left."""

import io
import math

import pytest
from rich.console import Console

from bench.cli.progress import Bar, Interim, Lines, TimeLeft
from bench.store.records import Cost, Row, RunResult
from bench.study.log import final, outcome, workload


@pytest.fixture
def result(run_spec):
    """A run's result with a final likelihood, or a failure."""

    def make(method, seed, value, dataset="circle", seconds=1.0):
        role = {"oracle": "ceiling", "pyro-vae": "reference"}.get(method.partition("[")[0], "method")
        spec = run_spec(method=method, seed=seed, dataset=dataset, role=role)
        if value is None:
            return RunResult(spec, status="failed", message="ValueError: [red]\nno")
        rows = [Row(n, name, v, 0.1, "nats", Cost()) for n, name, v in ((0, "test_ll", 99.0), (1, "test_ll", value))]
        rows.append(Row(1, "elbo", 50.0, 0.1, "nats", Cost()))
        return RunResult(spec, rows=rows, cost=Cost(wall_s=seconds, flops=1e6), evaluation_s=seconds)

    return make


@pytest.fixture
def told(capsys):
    """The lines that a study's progress tells, given results in the order in which they come."""

    def run(results, total=None, jobs=1):
        lines = Lines()
        lines.begin(total or len(results), [each.spec for each in results], jobs)
        for each in results:
            lines.finish(each)
        lines.close()
        return capsys.readouterr().err.splitlines()

    return run


def test_lines(told, result):
    results = [result("vae", 0, -1.0), result("mapa", 0, None), result("vae", 1, -3.0), result("mapa", 1, -2.5)]
    assert told(results, total=6) == [
        "4 runs to do (2 are done)",
        "[3/6] circle / vae / seed 0: test_ll -1.000 in 1 s, 1 MFLOP  about 6 s left",
        "[4/6] circle / mapa / seed 0: failed - ValueError: [red] no  about 2 s left, 1 failed",
        "[5/6] circle / vae / seed 1: test_ll -3.000 in 1 s, 1 MFLOP  1 failed",
        "[6/6] circle / mapa / seed 1: test_ll -2.500 in 1 s, 1 MFLOP  1 failed",
        "circle: mapa against vae +0.500 nats, the median difference over 1 seed so far",
    ]


def test_who_is_ahead_is_told_once_a_dataset_is_over(told, result):
    results = [
        result("vae", 0, -1.0), result("vae", 0, -4.0, "torus"),
        result("mapa", 0, -2.0, "torus"), result("mapa", 0, -2.0),
    ]  # fmt: skip
    lines = told(results)
    assert lines[4] == "torus: mapa against vae +2.000 nats, the median difference over 1 seed so far"
    assert lines[6] == "circle: vae against mapa +1.000 nats, the median difference over 1 seed so far"
    assert len(lines) == 7


def test_the_answer_so_far_is_told_after_two_and_five_seeds_of_all_methods(told, result):
    seeds = range(6)
    results = [result("vae", seed, -1.0) for seed in seeds] + [result("mapa", seed, -1.5 - seed) for seed in seeds]
    answers = [line for line in told(results) if line.startswith("circle: ")]
    assert answers == [
        f"circle: vae against mapa +{ahead:.3f} nats, the median difference over {n} seeds so far"
        for n, ahead in ((2, 1.0), (5, 2.5), (6, 3.0))
    ]


def test_nothing_leads_where_all_failed(told, result):
    assert len(told([result("vae", 0, None), result("vae", 1, None)])) == 3


def test_the_paired_difference_is_told_and_the_true_model_and_references_left_out(result):
    results = [result("vae", seed, value) for seed, value in enumerate((-1.0, -1.0, -100.0))]
    results += [result("mapa", seed, value) for seed, value in enumerate((-2.0, -2.0, 50.0))]
    results += [result("oracle", 0, 9.0), result("oracle[x=1]", 0, 9.0), result("pyro-vae", 0, 9.0)]
    interim = Interim([each.spec for each in results])
    assert interim.answer("circle") == ""
    for each in results:
        interim.finish(each)
    assert interim.answer("circle") == "circle: vae against mapa +1.000 nats, the median difference over 3 seeds so far"
    assert interim.failures() == ""


def test_what_was_skipped_has_not_failed(run_spec):
    interim = Interim([])
    for status in ("skipped", "timeout", "failed", "done"):
        interim.finish(RunResult(run_spec(), status=status))
    assert interim.failures() == "2 failed"


def test_the_time_left_is_shared_by_jobs(result):
    results = [result("vae", seed, 0.0, seconds=seconds) for seed, seconds in enumerate((1.0, 2.0, 5.0, 5.0))]
    left = TimeLeft([each.spec for each in results], jobs=2)
    assert left.seconds() is None
    left.finish(results[0])
    left.finish(results[1])
    assert left.seconds() == pytest.approx(2 * 3.0 / 2)


def test_the_last_likelihood_counts(result, run_spec):
    assert final(result("vae", 0, -3.0)).value == -3.0
    assert final(RunResult(run_spec())) is None
    assert outcome(RunResult(run_spec(), cost=Cost(wall_s=math.nan))).startswith("circle / vae / seed 0: done in ")


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((3, 0, 1), "all 3 runs are done; nothing to run"),
        ((3, 3, 1), "3 runs to do"),
        ((3, 2, 2), "2 runs to do (1 is done), 2 at a time"),
    ],
)
def test_the_workload(numbers, text):
    assert workload(*numbers) == text


def test_the_bar_shows_what_leads_and_what_failed(result, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=shown, force_terminal=True, width=200))
    results = [result("vae[steps=5]", 0, -1.0), result("mapa", 0, None), result("vae", 0, -2.0, "torus")]
    bar = Bar()
    bar.begin(3, [each.spec for each in results], 1)
    for each in results[:2]:
        bar.finish(each)
    bar.bar.refresh()
    bar.close()
    text = shown.getvalue()
    assert "about 2 s left, 1 failed, circle: vae[steps=5] -1.000 nats over 1 seed" in text
    assert "[2/3] circle / mapa / seed 0: failed - ValueError: [red] no" in text


def test_a_bar_that_never_began_is_closed():
    Bar().close()

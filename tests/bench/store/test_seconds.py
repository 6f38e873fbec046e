"""Seconds of one fit alone, and what other seeds take by them."""

import pytest

from bench.store.records import Cost, Row, RunResult
from bench.store.seconds import at, quoted, untimed


@pytest.mark.parametrize(
    ("alone", "flops", "wall"),
    [
        ([(100.0, 2.0, 1.0)], [0.0, 25.0, 100.0, 300.0], [0.0, 0.5, 2.0, 6.0]),
        ([(k, 0.1 * k, 0.05 * k) for k in range(1, 11)], [0.5, 7.25, 10.0, 1000.0], [0.05, 0.725, 1.0, 100.0]),
        # A second for 10 FLOPs, then one for 100: beyond the end as at last.
        ([(10.0, 1.0, 0.5), (110.0, 2.0, 1.0)], [5.0, 10.0, 60.0, 110.0, 210.0], [0.5, 1.0, 1.5, 2.0, 3.0]),
        ([(10.0, 1.0, 0.5), (20.0, 1.1, 0.55), (40.0, 3.1, 1.55)], [40.0, 50.0], [3.1, 4.1]),
        ([(10.0, 1.0, 0.5), (10.0, 1.0, 0.5)], [10.0, 20.0], [1.0, 2.0]),
        ([(0.0, 1.0, 0.5)], [0.0], [1.0]),
    ],
    ids=["one point", "linear", "two slopes", "the last half", "twice the same", "no FLOPs"],
)
def test_seconds_at_some_flops(alone, flops, wall):
    found = at(alone, flops)
    assert found[0] == pytest.approx(wall)
    assert found[1] == pytest.approx([each / 2 for each in wall])


@pytest.fixture
def result(run_spec):
    """A contended result of 20 FLOPs, with a checkpoint at 5."""

    def make(seed, *, alone=(), status="done", concurrent=True, **fields):
        costs = [Cost(9.0, 9.0, flops, 3, 4) for flops in (5.0, 20.0)]
        rows = [Row(look, "elbo", 0.0, 0.1, "nats", cost) for look, cost in enumerate(costs)]
        spec = run_spec(seed=seed, **fields)
        return RunResult(spec, status, cost=costs[-1], rows=rows, concurrent=concurrent, alone=list(alone))

    return make


def test_the_first_contended_run_of_each_pair_is_to_be_timed(result):
    results = [
        result(3),
        result(1),
        result(0, status="failed"),
        result(0, method="mapa", concurrent=False),
        result(2, method="mapa"),
        result(0, method="iwae", max_seconds=1.0),
        result(5, dataset="torus"),
        result(4, dataset="torus", alone=[(20.0, 1.0, 1.0)]),
        result(0, method="flow", concurrent=False),
    ]
    assert untimed(results) == [results[1].spec, results[4].spec]


def test_all_seeds_are_given_the_seconds_of_the_fit_alone(result):
    alone = [(10.0, 1.0, 0.5), (20.0, 3.0, 1.5)]
    given = [result(0), result(1, alone=alone)]
    for before, after in zip(given, quoted(given), strict=True):
        assert (after.spec, after.concurrent, after.timed_seed) == (before.spec, False, 1)
        assert after.cost == Cost(3.0, 1.5, 20.0, 3, 4)
        assert [row.cost for row in after.rows] == [Cost(0.5, 0.25, 5.0, 3, 4), Cost(3.0, 1.5, 20.0, 3, 4)]
        assert [row.value for row in after.rows] == [row.value for row in before.rows]
        assert (before.concurrent, before.timed_seed, before.cost.wall_s) == (True, None, 9.0)


def test_fits_with_other_hyperparameters_are_timed_by_themselves(result):
    """As seeds of one comparison have where they take turns with the choices of several tunings."""
    one, two = ({"parameters": (("batch_size", size),)} for size in (7, 8))
    results = [result(0, **one), result(1, **one), result(3, **two), result(4, **two)]
    assert untimed(results) == [results[0].spec, results[2].spec]
    timed = [result(0, alone=[(20.0, 3.0, 1.5)], **one), *results[1:]]
    assert untimed(timed) == [results[2].spec]
    assert [each.timed_seed for each in quoted(timed)] == [0, 0, None, None]


def test_what_has_seconds_of_its_own_keeps_them(result):
    alone = [(20.0, 3.0, 1.5)]
    given = [
        result(0, alone=alone),
        result(1, concurrent=False),
        result(2, max_seconds=1.0),
        result(0, method="mapa"),
        result(0, dataset="torus"),
    ]
    assert quoted(given)[1:] == given[1:]
    assert quoted(given)[0] != given[0]


def test_a_run_without_measurements_has_seconds_too(run_spec, result):
    failed = RunResult(run_spec(seed=1), "failed", cost=Cost(9.0, 9.0, 10.0), concurrent=True)
    assert quoted([result(0, alone=[(20.0, 3.0, 1.5)]), failed])[1].cost == Cost(1.5, 0.75, 10.0)

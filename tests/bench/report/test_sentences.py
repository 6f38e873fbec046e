"""Sentences about a study as a whole say what its tables say."""

import pandas as pd

from bench.report.sentences import accuracy, endings
from bench.store.schema import RUN


def runs_of(*rows):
    return pd.DataFrame(rows, columns=["method", "role", "status", "stopped_by"])


def test_the_fits_that_a_budget_ended_are_counted_by_method():
    some = runs_of(
        ("vae", "method", "done", "max_flops"),
        ("vae", "method", "done", ""),
        ("mapa", "method", "done", ""),
        ("iwae", "method", "failed", "max_flops"),
        ("oracle", "ceiling", "done", "max_seconds"),
    )
    assert endings(some) == (
        "The budget ended these fits: vae 1 of 2. All other fits ended by their method's own rule."
    )
    assert endings(some[:1]) == "The budget ended these fits: vae 1 of 1."
    assert endings(some[1:]) == ""


def test_runs_whose_error_is_unusual_are_named():
    index = pd.MultiIndex.from_tuples([("circle", "vae", seed) for seed in range(4)], names=RUN)
    (usual,) = accuracy(pd.Series([0.1, 0.1, 0.1, 1.9], index))
    assert "median 0.1000 nats" in usual
    errors = pd.Series([0.1, 0.1, 0.1, 40.0, 2.1], [*index, ("circle", "mapa", 7)])
    same, unusual = accuracy(errors.set_axis(pd.MultiIndex.from_tuples(errors.index, names=RUN)))
    assert same == usual
    assert unusual.startswith("It is above 2.000 nats for vae on circle (seed 3) and mapa on circle (seed 7):")
    assert accuracy(pd.Series([], pd.MultiIndex.from_tuples([], names=RUN), dtype=float)) == []

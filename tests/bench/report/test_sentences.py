"""Sentences about a study as a whole say what its tables say."""

from types import SimpleNamespace

import pandas as pd

from bench.report.sentences import accuracy, endings, overview
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


def compared(**differences):
    """Comparisons of mapa with others, from differences in nats on datasets a, b and c, all undecided."""
    return [
        SimpleNamespace(
            baseline="mapa",
            other=other,
            differences=[
                SimpleNamespace(dataset=dataset, nats=nats, verdict="undecided", interval=(-1.0, 1.0))
                for dataset, nats in zip("abc", each, strict=False)
            ],
            having=lambda _: [],
        )
        for other, each in differences.items()
    ]


def test_a_baseline_that_is_behind_most_often_is_said_to_be_though_each_difference_is_undecided():
    (told,) = overview(
        compared(vae=(0.1, -0.1, 0.2), gtm=(-0.1, -0.2, 0.1), mle=(-0.1, -0.1, -0.1), flow=(0.1, 0.0, -0.1)), []
    )
    assert told.startswith("None is found better than mapa. In 12 comparisons")
    assert told.endswith("By median differences alone it is behind mle on 3 of 3 datasets and gtm on 2 of 3.")


def test_nothing_is_said_of_medians_where_a_baseline_is_ahead_or_there_is_one_dataset():
    for found in (compared(vae=(0.1, -0.1, 0.2)), compared(vae=(-0.1,))):
        (told,) = overview(found, [])
        assert "behind" not in told

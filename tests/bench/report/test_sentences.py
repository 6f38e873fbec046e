"""Sentences about a study as a whole say what its tables say."""

from types import SimpleNamespace

import pandas as pd
import pytest

from bench.report.sentences import alone, needed, overview
from bench.report.study_notes import accuracy, conditions, endings, incident
from bench.store.schema import RUN
from bench.store.study_tables import Study


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
    wide = [("images", "vae", seed) for seed in range(3)]  # all errors there are large, and none is unusual
    errors = pd.Series([0.1, 0.1, 0.1, 40.0, 2.1, 9.0, 9.0, 9.0], [*index, ("circle", "mapa", 7), *wide])
    same, unusual = accuracy(errors.set_axis(pd.MultiIndex.from_tuples(errors.index, names=RUN)))
    assert "median 5.5500 nats" in same
    assert unusual == (
        "It is over 20 times the median of its dataset for vae on circle (seed 3) and mapa on circle (seed 7): there "
        "the mean rests on a few points."
    )
    assert accuracy(pd.Series([], pd.MultiIndex.from_tuples([], names=RUN), dtype=float)) == []


def test_what_did_not_finish_is_told_by_method_and_dataset_where_nothing_did():
    """A method that declines a dataset has no other seeds there."""
    rows = [(m, d, seed, "done") for m in ("a", "b") for d in ("circle", "torus") for seed in range(2)]
    runs = pd.DataFrame(rows, columns=["method", "dataset", "seed", "status"])

    def told(**changed):
        each = runs.assign(status=[changed.get(f"{m}_{d}_{s}", "done") for m, d, s, _ in rows])
        return incident(SimpleNamespace(runs=each, unfinished=each[each["status"] != "done"]))

    assert told() == ""
    assert told(a_circle_1="failed") == (
        "1 of 8 runs did not finish: 1 failed. Other results are over the seeds that finished."
    )
    assert told(b_torus_0="skipped", b_torus_1="skipped") == (
        "2 of 8 runs did not finish: 2 skipped. No run finished of b on torus. Other results are over the seeds that "
        "finished."
    )
    none = {f"{m}_{d}_{s}": "failed" for m, d, s, _ in rows}
    assert told(**none).endswith("No run finished of a on circle, a on torus, b on circle and b on torus.")


def test_the_seeds_of_a_new_study_are_not_added_to_those_there_are():
    assert needed(SimpleNamespace(seeds=10, decision=SimpleNamespace(needed=6.0))) == "about 6"


def test_an_only_method_is_told_by_its_distance_from_the_truth_or_its_likelihood():
    table = pd.DataFrame({"method": ["a", "a"], "dataset": ["circle", "own"], "seeds_done": [3, 3]})
    known = table.assign(oracle_gap_median=[0.25, 0.75], test_ll_median=[-1.0, -2.0])
    assert "Over 3 seeds it ends 0.500 nats below the true model (median over 2 datasets)." in alone("a", known)
    unknown = known.drop(columns="oracle_gap_median")
    assert alone("a", unknown).endswith(
        "Over 3 seeds its median test log-likelihood is -1.000 on circle and -2.000 on own; the true model is not "
        "known."
    )
    assert alone("a", table.assign(seeds_done=0)).endswith("It finished no seed.")


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


@pytest.mark.parametrize(
    ("families", "told"), [((), True), (("gaussian", "bernoulli"), True), (("bernoulli", "poisson"), False)]
)
def test_noise_is_spoken_of_where_a_dataset_has_it(tmp_path, families, told):
    """An older study does not say what its datasets are."""
    info = {"settings": {"observation_noise": "learned"}, "datasets": {each: {"likelihood": each} for each in families}}
    study = Study(tmp_path, *[pd.DataFrame()] * 7, info)
    assert ("learned observation noise" in conditions(study)) == told


@pytest.mark.parametrize(
    ("counted", "told"), [((), "2000"), ((None,), "2000"), ((797,), "797"), ((2000, 797), "797 or 2000")]
)
def test_the_test_points_are_those_that_the_datasets_have(tmp_path, counted, told):
    """An older study does not say how many they have."""
    about = {str(place): {} if count is None else {"test_points": count} for place, count in enumerate(counted)}
    info = {"settings": {"n_test": 2000}, "datasets": about}
    study = Study(tmp_path, *[pd.DataFrame()] * 7, info)
    assert f"{told} test points" in conditions(study)


def test_a_long_list_of_losses_is_told_by_how_many_and_how_much():
    """Up to six are told with their datasets; the tables have the others."""
    found = compared(vae=(-0.2, -0.3), gtm=(-0.1, -0.5, -0.4), flow=(-0.6,))
    for each in found:
        for difference in each.differences:
            difference.verdict = "worse"
        each.having = lambda _, of=each.differences: of
    (told,) = overview(found, [])
    assert told.startswith(
        "mapa is worse than vae (a -0.200, b -0.300 nats), gtm (a -0.100, b -0.500, c -0.400 nats) and"
    )
    more = compared(svi=(-0.7,))
    more[0].having = lambda _: more[0].differences
    more[0].differences[0].verdict = "worse"
    (told,) = overview([*found, *more], [])
    assert told.startswith(
        "mapa is worse than gtm on 3 datasets (by up to 0.500 nats), vae on 2 (0.300), flow on 1 (0.600) and svi on 1 "
        "(0.700). In 7 comparisons by method and dataset it is worse in 7,"
    )

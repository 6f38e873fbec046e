"""The tuning budget: how many trials it allows, whatever the order, the rounds or the interruptions."""

import json

import numpy as np
import pytest

from bench.execution import scheduler
from bench.fit.runner import run_one
from bench.store import tables
from bench.tuning.budget import affordable
from bench.tuning.design import FRESH_SEEDS


def chosen(folder):
    """What tuned.json says of each (dataset, method), without seconds."""
    content = json.loads((folder / "tuned.json").read_text())
    return {(each["dataset"], each["method"]): {**each, "wall_s": None} for each in content["choices"]}


def of_search(folder):
    """The rows of the search, in order."""
    rows = tables.read_table(folder, "trials")
    return rows[rows["stage"] == "search"]


def one_by_one(costs, budget, limit):
    """The rule, followed a trial at a time."""
    costs = list(costs)
    count, spent = 1, costs[0]
    while count < limit and spent + spent / count <= budget:
        if spent + costs[count] > budget:
            break
        spent += costs[count]
        count += 1
    return count


@pytest.mark.parametrize("seed", range(5))
def test_the_rule_is_that_of_trials_one_by_one(seed):
    random = np.random.default_rng(seed)
    for budget in (0.5, 1, 3, 10, 30, 200):
        costs = random.lognormal(0, 0.7, 64).round(3).tolist()
        known, rounds = 1, 0
        while (wanted := affordable(costs[:known], budget, 64)) > known:
            assert wanted <= 2 * known
            known, rounds = wanted, rounds + 1
        assert wanted == one_by_one(costs, budget, 64)
        assert rounds <= 12
        assert {affordable(costs[:more], budget, 64) for more in range(known, 65)} == {wanted}
        assert sum(costs[:wanted]) <= budget or wanted == 1


@pytest.mark.parametrize(
    ("costs", "budget", "limit", "count"),
    [
        ([10], 35, 64, 2),
        ([10, 10], 35, 64, 3),
        ([10, 10, 10], 35, 64, 3),
        ([10, 10, 10, 10], 35, 64, 3),
        ([10, 10, 10], 40, 64, 4),
        ([10, 26], 35, 64, 1),
        ([10, 25], 35, 64, 2),
        ([50], 35, 64, 1),
        ([10], 1000, 1, 1),
        ([10, 10], 1000, 3, 3),
        ([0.0], 35, 64, 2),
        ([0.0, 0.0], 35, 2, 2),
        ([10], float("inf"), 64, 2),
    ],
)
def test_what_a_budget_allows(costs, budget, limit, count):
    assert affordable(costs, budget, limit) == count


@pytest.mark.parametrize("method", ["cheap", "uneven[shift=-0.25]", "broken"])
def test_fits_give_what_they_are_known_to_give(fits, offer, priced, known_outcome, run_spec, method):
    """No other test of the budget has to make them."""
    offer("broken", priced(price=100.0, breaks=True))
    spec = run_spec(method=method, scored_on="validation")
    made, known = run_one(spec), known_outcome(spec)
    assert (made.status, made.cost.flops, made.parameters) == (known.status, known.cost.flops, known.parameters)
    assert [(row.metric, row.value, row.stderr, row.cost.flops) for row in made.rows] == [
        (row.metric, row.value, row.stderr, row.cost.flops) for row in known.rows
    ]


def test_a_cheap_and_a_costly_method_have_the_same_budget(tune, tmp_path, ran):
    assert tune(tmp_path / "out", "cheap,costly", 525, trials=6, datasets="circle,absolute").code == 0
    found = chosen(tmp_path / "out")
    assert {pair: (each["trials"], each["flops"]) for pair, each in found.items()} == {
        ("absolute", "cheap"): (6, 180),
        ("absolute", "costly"): (1, 300),
        ("circle", "cheap"): (6, 180),
        ("circle", "costly"): (1, 300),
    }
    assert len(ran) == 2 * ((6 + 1) * 3 + 2 * FRESH_SEEDS)


def test_the_budget_binds_before_the_limit(tune, tmp_path, ran):
    assert tune(tmp_path / "out", "cheap,costly", 345, "--quiet").code == 0
    found = chosen(tmp_path / "out")
    assert [(each["trials"], each["flops"]) for each in found.values()] == [(11, 330), (1, 300)]
    assert len(ran) == (11 + 1) * 3 + 2 * FRESH_SEEDS


def test_uneven_costs_stay_within_the_budget(tune, tmp_path):
    for budget in (450, 1200):
        out = tmp_path / str(budget)
        assert tune(out, "uneven", budget, "--quiet").code == 0
        rows = of_search(out)
        (found,) = chosen(out).values()
        costs = rows.groupby("trial")["flops"].sum()
        assert rows["flops"].tolist() == pytest.approx((20 + 100 * rows["p_shift"].abs()).tolist(), abs=1)
        assert found["trials"] == rows.loc[rows["counted"], "trial"].nunique() == one_by_one(costs, budget, 16)
        assert found["flops"] == pytest.approx(rows.loc[rows["counted"], "flops"].sum())
        assert found["flops"] <= budget


def test_a_trial_beyond_the_budget_is_finished_and_cannot_win(tune, tmp_path):
    assert tune(tmp_path / "out", "uneven", 1000, "--quiet").code == 0
    rows = of_search(tmp_path / "out")
    (found,) = chosen(tmp_path / "out").values()
    assert set(rows["status"]) == {"done"}
    assert rows["score"].tolist() == pytest.approx(rows["p_shift"].abs().tolist(), abs=1e-6)
    assert rows.loc[~rows["counted"], "score"].max() > found["best_score"]
    assert found["best_score"] == rows.loc[rows["counted"], "score"].max()
    assert found["best"] < found["trials"] < rows["trial"].nunique()


def test_the_defaults_run_whatever_they_cost(tune, tmp_path):
    assert tune(tmp_path / "out", "costly", 30, "--quiet").code == 0
    (found,) = chosen(tmp_path / "out").values()
    assert (found["trials"], found["flops"], found["parameters"]) == (1, 300, {"shift": 0.5})
    assert found["confirmation"] is None
    assert found["reason"] == "the defaults are kept: no trial scored higher"


def test_fits_that_fail_are_paid_for(tune, offer, priced, tmp_path):
    offer("broken", priced(price=100.0, breaks=True))
    assert tune(tmp_path / "out", "broken", 1050, "--quiet").code == 1
    (found,) = chosen(tmp_path / "out").values()
    assert (found["trials"], found["unscored"], found["flops"]) == (3, 3, 900)


def test_the_confirmation_is_counted_beside_the_budget(tune, tmp_path):
    assert tune(tmp_path / "out", "uneven", 1200, "--quiet").code == 0
    (found,) = chosen(tmp_path / "out").values()
    rows = tables.read_table(tmp_path / "out", "trials")
    fresh = rows[rows["stage"] == "confirmation"]
    assert sorted(fresh["trial"].unique()) == [0, found["best"]]
    assert found["confirmation"]["flops"] == fresh["flops"].sum() > FRESH_SEEDS * 70
    assert found["flops"] == rows.loc[rows["counted"] & (rows["stage"] == "search"), "flops"].sum()


def interrupting(monkeypatch, after):
    """Interrupt the next study once so many runs have ended; what it would be without that."""

    def run_all(specs, how, folder):
        for number, result in enumerate(plain(specs, how, folder)):
            if number + len(ended) >= after:
                raise KeyboardInterrupt
            yield result
        ended.extend(specs)

    ended, plain = [], scheduler.run_all
    monkeypatch.setattr(scheduler, "run_all", run_all)
    return plain


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def tune_two(tune):
    """`tune` of a method with even and one with uneven costs, in four rounds."""
    return lambda out, *more: tune(out, "cheap,uneven", 750, *more, trials=6)


@pytest.fixture
def whole(tune_two, kept):
    """What is chosen for the two when nothing goes otherwise than usual."""
    if not (kept / "whole").exists():
        assert tune_two(kept / "whole", "--quiet").code == 0
    return chosen(kept / "whole")


@pytest.mark.parametrize("after", [1, 20, 45])
def test_an_interrupted_tuning_chooses_the_same(whole, tune_two, tmp_path, monkeypatch, after):
    plain = interrupting(monkeypatch, after)
    assert tune_two(tmp_path).code == 130
    assert not (tmp_path / "tuned.json").exists()
    monkeypatch.setattr(scheduler, "run_all", plain)
    assert tune_two(tmp_path, "--quiet").code == 0
    assert chosen(tmp_path) == whole


def test_the_order_in_which_runs_end_does_not_matter(whole, tune_two, tmp_path, monkeypatch):
    plain = scheduler.run_all
    monkeypatch.setattr(scheduler, "run_all", lambda specs, *how: plain(specs[::-1], *how))
    assert tune_two(tmp_path, "--quiet", "--jobs", 2).code == 0
    assert chosen(tmp_path) == whole


def test_the_same_again_runs_nothing_and_says_so_once(tune, tmp_path, ran):
    first = tune(tmp_path / "out", "cheap,costly", 345)
    count = len(ran)
    assert [line for line in first.err.splitlines() if line.startswith(("round ", "confirmation"))] == [
        "round 1: the defaults",
        "round 2: 1 more trials within the budget",
        "round 3: 2 more trials within the budget",
        "round 4: 4 more trials within the budget",
        "round 5: 3 more trials within the budget",
        "confirmation: the best trial and the defaults on 10 fresh seeds",
    ]
    again = tune(tmp_path / "out", "cheap,costly", 345)
    assert len(ran) == count
    first_round, nothing, confirmation, nothing_either = again.err.splitlines()
    assert first_round == "round 1: the defaults"
    assert nothing.startswith(f"all {count - 2 * FRESH_SEEDS} runs are done")
    assert confirmation.startswith("confirmation: ")
    assert nothing_either.startswith(f"all {2 * FRESH_SEEDS} runs are done")


def test_more_methods_seeds_and_datasets_are_added(tune, tmp_path, ran):
    out = tmp_path / "out"
    assert tune(out, "cheap", 345, "--quiet").code == 0
    assert tune(out, "costly", 345, "--quiet", datasets="absolute").code == 0
    assert set(chosen(out)) == {("circle", "cheap"), ("absolute", "costly")}
    assert tune(out, "cheap", 345, "--quiet", "--seeds", 4).code == 0
    assert [(each["trials"], each["flops"]) for each in chosen(out).values()] == [(1, 400), (8, 320)]
    content = json.loads((out / "tuned.json").read_text())
    assert content["budget"]["seeds"] == 4
    assert content["seeds"] == [*range(1000, 1004), *range(2000, 2000 + FRESH_SEEDS)]


def test_another_budget_does_not_mix(tune, tmp_path, unchanged):
    tune(tmp_path / "out", "costly", 115, "--quiet")
    with unchanged(tmp_path):
        assert "holds a study with --budget 115, got 120" in tune(tmp_path / "out", "costly", 120).err


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "inf", "much"])
def test_what_is_no_budget_is_refused(tune, tmp_path, unchanged, ran, budget):
    with unchanged(tmp_path):
        end = tune(tmp_path / "out", "cheap", budget)
    assert (end.code, end.err.count("\n"), ran) == (2, 1, [])
    assert "--budget" in end.err

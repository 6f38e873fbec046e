"""The stages of a tuning: the search, its confirmation on fresh seeds, and independent tunings."""

import json
import shutil

import numpy as np
import pytest

from bench.config.schema import TuneSettings
from bench.store import tables
from bench.store.records import Cost, Row, RunResult
from bench.tuning.design import CONFIRMATION, FRESH_SEEDS, SEARCH, Stage, planned, trials
from bench.tuning.search import run
from bench.tuning.selection import choose

TWO = ("--repeats", 2, "--quiet")
RUNS = 5 * 3 + 2 * FRESH_SEEDS  # of one tuning of `cheap`


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def twice(tune, kept, tmp_path, ran):
    """A folder in which `cheap` is tuned twice with five trials; the runs made for that are not in `ran`."""
    if not (kept / "out").exists():
        assert tune(kept / "out", "cheap", 1e9, *TWO, trials=5).code == 0
        assert len(ran) == 2 * RUNS
        ran.clear()
    return shutil.copytree(kept / "out", tmp_path / "out")


def content_of(folder):
    """What tuned.json says, without seconds and times."""
    content = json.loads((folder / "tuned.json").read_text())
    return {
        **{name: content[name] for name in ("datasets", "seeds", "budget")},
        "choices": [{**each, "wall_s": None} for each in content["choices"]],
    }


def seeds_of(folder):
    """The seeds of each tuning and stage."""
    rows = tables.read_table(folder, "trials")
    return rows.groupby(["tuning", "stage"])["seed"].unique().map(sorted).to_dict()


def test_tunings_have_trials_seeds_and_choices_of_their_own(twice):
    seeds = {}
    for n, first in ((1, 1000), (2, 3000)):
        seeds[n, SEARCH] = [*range(first, first + 3)]
        seeds[n, CONFIRMATION] = [*range(first + 1000, first + 1000 + FRESH_SEEDS)]
    assert seeds_of(twice) == seeds
    content, rows = content_of(twice), tables.read_table(twice, "trials")
    assert content["seeds"] == sorted(seed for each in seeds.values() for seed in each)
    assert content["budget"]["repeats"] == 2
    choices = content["datasets"]["circle"]["cheap"]
    assert len({each["shift"] for each in choices}) == 2
    assert [each["parameters"] for each in content["choices"]] == choices
    for n, choice in enumerate(choices, 1):
        own = rows[(rows["tuning"] == n) & (rows["stage"] == SEARCH)]
        assert choice == {"shift": own["p_shift"][own["score"].idxmax()]}


def test_the_first_of_several_tunings_is_the_only_one_there_would_be(tune, twice, tmp_path):
    tune(tmp_path / "one", "cheap", 1e9, "--quiet", trials=5)
    assert content_of(tmp_path / "one")["choices"] == content_of(twice)["choices"][:1]


@pytest.mark.parametrize(
    ("stage", "runs"),
    [("runs", 15), ("confirmation", 20), ("tuning-2", RUNS), ("tuning-2/confirmation", 20)],
)
def test_a_stage_that_is_missing_is_made_again_and_nothing_else(tune, twice, ran, stage, runs):
    before = content_of(twice)
    (twice / "tuned.json").unlink()
    shutil.rmtree(twice / stage)
    end = tune(twice, "cheap", 1e9, "--repeats", 2, trials=5)
    assert len(ran) == runs
    assert content_of(twice) == before
    for n in (1, 2):
        assert f"tuning {n} of 2, round 1: the defaults" in end.err
        assert f"tuning {n} of 2, confirmation: the best trial and the defaults on 10 fresh seeds" in end.err


def test_only_a_trial_that_leads_is_confirmed(tune, offer, priced, tmp_path, ran):
    """Where the defaults have the best score there is nothing to confirm."""
    offer("best", priced(shift=1.0))
    assert tune(tmp_path, "best", 1e9, "--quiet", trials=4).code == 0
    assert seeds_of(tmp_path) == {(1, SEARCH): [1000, 1001, 1002]}
    (choice,) = content_of(tmp_path)["choices"]
    assert (choice["trial"], choice["parameters"]) == (0, {"shift": 1.0})
    assert len(ran) == 4 * 3


@pytest.mark.parametrize("scores", [(0.0, 1.0, 2.0), (0.0, 2.0, 1.0)])
def test_only_the_winner_is_confirmed_whatever_was_confirmed_before(tune, scores):
    """More seeds may have another winner. The folder keeps the rows of the earlier one, which count no more."""
    plan = planned(TuneSettings(methods=("cheap",), datasets=("circle",), trials=3, budget=1e9))
    asked = []

    def made_up(spec):
        number = [trial.label for trial in trials("cheap", 3, plan)].index(spec.method)
        row = Row(0, "validation_ll", scores[number], 0.1, "nats", Cost(flops=1.0))
        return RunResult(spec, rows=[row], cost=Cost(flops=1.0), parameters={"shift": number})

    def run_round(title, asked_for, stage):
        every = stage.of(plan, [("circle", trial.label) for trial in trials("cheap", 3, plan)])
        asked.append((stage.name, [spec.method for spec in asked_for.runs]))
        return [made_up(spec) for spec in every.runs]

    _, rows = run(plan, run_round)
    winner = int(np.argmax(scores))
    fresh = rows[rows["stage"] == CONFIRMATION]
    assert {*fresh["trial"]} == {0, 1, 2}
    assert {*fresh.loc[fresh["counted"], "trial"]} == {0, winner}
    labels = {trial.label for trial in trials("cheap", 3, plan) if trial.number in (0, winner)}
    assert {*asked[-1][1]} == labels
    (choice,) = choose(rows, plan)
    assert (choice.trial, choice.confirmation.flops) == (winner, 2 * FRESH_SEEDS)


@pytest.mark.parametrize("repeat", [1, 2, 3])
@pytest.mark.parametrize(
    ("block", "expected"), [(10, {SEARCH: 4, CONFIRMATION: 10}), (1, {SEARCH: 1, CONFIRMATION: 1})]
)
def test_seeds_that_nobody_asks_for_are_hardly_fitted(repeat, block, expected):
    """A program has all seeds of its block: those of a search are in one of four, those of a confirmation in one."""
    asked = planned(TuneSettings(methods=("vae",), datasets=("circle",), block=block))
    for name, size in expected.items():
        runs = Stage(repeat, name).of(asked, [("circle", "vae")]).runs
        assert {spec.block for spec in runs} == {size}
        assert len({spec.seed // size for spec in runs}) == (1 if block > 1 else len(runs))


def test_what_is_set_is_set_in_every_stage(tune, offer, priced, tmp_path):
    """Also for a method that an earlier command tuned and that this one does not name."""
    offer("other", priced())
    assert tune(tmp_path, "cheap", 1e9, "--set", "cheap.price=30", *TWO, trials=5).code == 0
    shutil.rmtree(tmp_path / "confirmation")
    shutil.rmtree(tmp_path / "tuning-2")
    assert tune(tmp_path, "other", 1e9, "--set", "other.price=50", *TWO, trials=5).code == 0
    rows = tables.read_table(tmp_path, "trials")
    assert rows.groupby(["method", "tuning", "stage"])["p_price"].unique().map(list).to_dict() == {
        (method, n, stage): [price]
        for method, price in (("cheap", 30), ("other", 50))
        for n in (1, 2)
        for stage in (SEARCH, CONFIRMATION)
    }


def test_a_method_that_has_spent_its_budget_may_have_hyperparameters_that_are_set(tune, tmp_path):
    """Its later rounds are those of the other method alone."""
    assert tune(tmp_path, "cheap,costly", 345, "--quiet", "--set", "costly.slope=1").code == 0
    assert [each["trials"] for each in content_of(tmp_path)["choices"]] == [11, 1]


def test_status_counts_the_runs_of_all_stages(twice, cli):
    end = cli("status", twice)
    assert (end.code, end.err) == (0, "")
    assert f"{2 * RUNS} runs: {2 * RUNS} done" in end.out
    shutil.rmtree(twice / "tuning-2" / "confirmation" / "runs")
    (twice / "tuning-2" / "confirmation" / "runs.parquet").unlink()
    (twice / "tuning-2" / "confirmation" / "runs.csv").unlink()
    assert f"{2 * FRESH_SEEDS} missing" in cli("status", twice).out

"""The tuning budget: how many trials it allows, whatever the order, the rounds or the interruptions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from bench.execution import scheduler
from bench.fit import runner
from bench.fit.runner import run_one
from bench.metrics import BaseEvaluator
from bench.metrics.measurement import Measurement
from bench.registry import fingerprints
from bench.store import tables
from bench.tuning.budget import affordable
from methods.common.posteriors import Prior
from methods.contract.method import Fitted, Method
from methods.contract.search_space import Range, Uniform


@dataclass(frozen=True)
class Priced(Method):
    """The initial weights with a shift of the decoder, at a price in FLOPs that grows with the shift by `slope`."""

    price: float = 10.0
    slope: float = 0.0
    shift: float = 0.5
    breaks: bool = False

    search: ClassVar[Mapping[str, Range]] = {"shift": Uniform(-1, 1)}

    def fit(self, task):
        task.ledger.charge("price", self.price + self.slope * abs(self.shift))
        if self.breaks:
            raise ArithmeticError("no")
        task.model.network[-1].bias.data.fill_(self.shift)
        yield Fitted(task.model, Prior(task.latent_dim))


class ByShift(BaseEvaluator):
    """Scores a model by how far it is shifted, so that what is dearer is better."""

    def __init__(self, *_):
        pass

    def evaluate_checkpoint(self, fitted, draws):
        return [Measurement("validation_ll", float(fitted.model.network[-1].bias.detach().abs().mean()), 0.0, "nats")]


@pytest.fixture
def tune(cli, in_process, offer, monkeypatch):
    """`tune` of priced methods on small data, run here, without quadrature; --budget and --trials are given."""
    monkeypatch.setattr(runner, "ValidationEvaluator", ByShift)
    monkeypatch.setattr(runner, "_warm_up", lambda *_: None)
    monkeypatch.setattr(fingerprints.Fingerprints, "of", lambda *_: fingerprints.Fingerprint("code", ()))
    offer("cheap", Priced())
    offer("costly", Priced(price=100.0))
    offer("uneven", Priced(price=20.0, slope=100.0))

    def run(out, methods, budget, *more, trials=16, datasets="circle"):
        args = ("--budget", budget, "--trials", trials, "--n-train", 20, "--seeds", 1, "--jobs", 1, "--out", out)
        return cli("tune", "-m", methods, "-d", datasets, *args, *more)

    return run


def chosen(folder):
    """What tuned.json says of each (dataset, method), without seconds."""
    content = json.loads((folder / "tuned.json").read_text())
    return {(each["dataset"], each["method"]): {**each, "wall_s": None} for each in content["choices"]}


def one_by_one(costs, budget, limit):
    """The rule, followed a trial at a time."""
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


def test_a_cheap_and_a_costly_method_have_the_same_budget(tune, tmp_path, in_process):
    assert tune(tmp_path / "out", "cheap,costly", 350, "--seeds", 2, trials=6, datasets="circle,absolute").code == 0
    found = chosen(tmp_path / "out")
    assert {pair: (each["trials"], each["flops"]) for pair, each in found.items()} == {
        ("absolute", "cheap"): (6, 120),
        ("absolute", "costly"): (1, 200),
        ("circle", "cheap"): (6, 120),
        ("circle", "costly"): (1, 200),
    }
    assert len(in_process) == 2 * (6 + 1) * 2


def test_the_budget_binds_before_the_limit(tune, tmp_path, in_process):
    assert tune(tmp_path / "out", "cheap,costly", 115, "--quiet").code == 0
    found = chosen(tmp_path / "out")
    assert [(each["trials"], each["flops"]) for each in found.values()] == [(11, 110), (1, 100)]
    assert len(in_process) == 11 + 1


def test_uneven_costs_stay_within_the_budget(tune, tmp_path):
    for budget in (150, 400):
        out = tmp_path / str(budget)
        assert tune(out, "uneven", budget, "--quiet").code == 0
        rows = tables.read_table(out, "trials")
        (found,) = chosen(out).values()
        assert rows["flops"].tolist() == pytest.approx((20 + 100 * rows["p_shift"].abs()).tolist(), abs=1)
        assert found["trials"] == rows["counted"].sum() == one_by_one(rows["flops"].tolist(), budget, 16)
        assert found["flops"] == pytest.approx(rows.loc[rows["counted"], "flops"].sum())
        assert found["flops"] <= budget


def test_a_trial_beyond_the_budget_cannot_win(tune, tmp_path):
    assert tune(tmp_path / "out", "uneven", 215, "--quiet").code == 0
    rows = tables.read_table(tmp_path / "out", "trials")
    (found,) = chosen(tmp_path / "out").values()
    assert rows.loc[~rows["counted"], "score"].max() > found["best"] == rows.loc[rows["counted"], "score"].max()
    assert found["trial"] < found["trials"] < len(rows)


def test_the_defaults_run_whatever_they_cost(tune, tmp_path):
    assert tune(tmp_path / "out", "costly", 30, "--quiet").code == 0
    (found,) = chosen(tmp_path / "out").values()
    assert (found["trials"], found["flops"], found["parameters"]) == (1, 100, {"shift": 0.5})


def test_fits_that_fail_are_paid_for(tune, offer, tmp_path):
    offer("broken", Priced(price=100.0, breaks=True))
    assert tune(tmp_path / "out", "broken", 350, "--quiet").code == 1
    (found,) = chosen(tmp_path / "out").values()
    assert (found["trials"], found["unscored"], found["flops"]) == (3, 3, 300)


def interrupting(monkeypatch, after):
    """Interrupt the next study once so many runs have ended."""

    def run_all(specs, how, folder):
        for number, spec in enumerate(specs):
            if number + len(ended) >= after:
                raise KeyboardInterrupt
            yield run_one(spec, how.jobs > 1)
        ended.extend(specs)

    ended = []
    monkeypatch.setattr(scheduler, "run_all", run_all)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def tune_two(tune):
    """`tune` of a method with even and one with uneven costs, in four rounds."""
    return lambda out, *more: tune(out, "cheap,uneven", 250, *more, trials=6)


@pytest.fixture
def whole(tune_two, kept):
    """What is chosen for the two when nothing goes otherwise than usual."""
    if not (kept / "whole").exists():
        assert tune_two(kept / "whole", "--quiet").code == 0
    return chosen(kept / "whole")


@pytest.mark.parametrize("after", [1, 6])
def test_an_interrupted_tuning_chooses_the_same(whole, tune_two, tmp_path, monkeypatch, after):
    plain = scheduler.run_all
    interrupting(monkeypatch, after)
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


def test_the_same_again_runs_nothing_and_says_so_once(tune, tmp_path, in_process):
    first = tune(tmp_path / "out", "cheap,costly", 115)
    ran = len(in_process)
    assert [line for line in first.err.splitlines() if line.startswith("round ")] == [
        "round 1: the defaults",
        "round 2: 1 more trials within the budget",
        "round 3: 2 more trials within the budget",
        "round 4: 4 more trials within the budget",
        "round 5: 3 more trials within the budget",
    ]
    again = tune(tmp_path / "out", "cheap,costly", 115)
    assert len(in_process) == ran
    (first_round, nothing) = again.err.splitlines()
    assert first_round == "round 1: the defaults"
    assert nothing.startswith(f"all {ran} runs are done")


def test_more_methods_seeds_and_datasets_are_added(tune, tmp_path, in_process):
    out = tmp_path / "out"
    assert tune(out, "cheap", 115, "--quiet").code == 0
    assert tune(out, "costly", 115, "--quiet", datasets="absolute").code == 0
    assert set(chosen(out)) == {("circle", "cheap"), ("absolute", "costly")}
    assert tune(out, "cheap", 115, "--quiet", "--seeds", 2).code == 0
    assert [(each["trials"], each["flops"]) for each in chosen(out).values()] == [(1, 200), (5, 100)]
    assert json.loads((out / "tuned.json").read_text())["budget"]["seeds"] == 2


def test_another_budget_does_not_mix(tune, tmp_path, unchanged):
    tune(tmp_path / "out", "costly", 115, "--quiet")
    with unchanged(tmp_path):
        assert "holds a study with --budget 115, got 120" in tune(tmp_path / "out", "costly", 120).err


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "inf", "much"])
def test_what_is_no_budget_is_refused(tune, tmp_path, unchanged, in_process, budget):
    with unchanged(tmp_path):
        end = tune(tmp_path / "out", "cheap", budget)
    assert (end.code, end.err.count("\n"), in_process) == (2, 1, [])
    assert "--budget" in end.err

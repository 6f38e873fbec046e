"""Studies whose seeds are fitted as one program: the same values however they came about, and seconds to be quoted."""

import json
import threading
import time

import pandas as pd
import pytest

from bench import metrics
from bench.config.schema import Execution, Settings
from bench.execution import scheduler
from bench.store import run_files, tables
from bench.store.locks import alone
from bench.store.records import RunResult
from bench.study.execute import execute
from bench.study.log import Silent
from bench.study.plan import resolve

TWO = Execution(jobs=2)
SMALL = {"methods": ("vae", "untrained"), "datasets": ("circle",), "n_train": 40, "n_test": 50}


def blocks_of(**settings):
    return {(run.dataset, run.method): run.block for run in resolve(Settings(**{**SMALL, "seeds": 1, **settings})).runs}


def test_a_method_that_stacks_has_the_block_that_is_asked_for():
    """Others have one seed each, as all have where seconds end a fit: those of one seed are not known."""
    assert blocks_of() == {("circle", "vae"): 10, ("circle", "untrained"): 1}
    assert blocks_of(block=4, methods=("iterative[steps=3]", "mapa")) == {
        ("circle", "iterative[steps=3]"): 4,
        ("circle", "mapa"): 1,
    }
    assert set(blocks_of(max_seconds=1.0).values()) == {1}


def test_what_study_json_says_of_methods_makes_the_same_runs(run, tmp_path):
    run(seeds=2)
    info = json.loads((tmp_path / "out" / "study.json").read_text())
    assert {name: about["stacks"] for name, about in info["methods"].items()} == {"vae": True, "untrained": False}
    plan = resolve(Settings(**SMALL, seeds=2))
    assert plan.runs_as_described(info) == plan.runs


@pytest.fixture
def run(invented, timed, tmp_path):
    """Make a study, or what is missing of it; what its runs table says."""

    def execution(how=TWO, log=None, **settings):
        execute(resolve(Settings(**{**SMALL, **settings})), tmp_path / "out", how, log or Silent(), "a command")
        return tables.read_table(tmp_path / "out", "runs").sort_values(["method", "seed"], ignore_index=True)

    return execution


@pytest.fixture
def timed(invented, monkeypatch):
    """The runs whose fits are timed, which takes 8 seconds for 20 FLOPs."""
    found = []

    def time_alone(specs):
        for spec in specs:
            found.append(spec.name)
            yield RunResult(spec, alone=[(20.0, 8.0, 4.0)])

    monkeypatch.setattr(scheduler, "time_alone", time_alone)
    return found


FIRST = ["circle / vae / seed 0", "circle / untrained / seed 0"]


def test_seconds_are_those_of_a_fit_alone(run, timed, tmp_path):
    runs = run(seeds=2)
    assert timed == FIRST
    assert runs["concurrent"].tolist() == [False] * 4
    assert runs["timed_seed"].tolist() == [0] * 4
    assert runs["wall_s"].tolist() == [4.0] * 4
    assert runs["cpu_s"].tolist() == [2.0] * 4
    rows = tables.read_table(tmp_path / "out", "measurements")
    assert rows.groupby("checkpoint")["wall_s"].unique().tolist() == [[2.0], [4.0]]
    assert not rows["concurrent"].any()


def test_a_study_that_is_resumed_is_not_timed_again(run, timed):
    run(seeds=1)
    assert run(seeds=1)["timed_seed"].tolist() == [0] * 2
    assert run(seeds=3)["timed_seed"].tolist() == [0] * 6
    assert timed == FIRST
    assert run(seeds=1, methods=("mapa",)).groupby("method")["concurrent"].any().tolist() == [False] * 3
    assert timed == [*FIRST, "circle / mapa / seed 0"]


def test_a_fit_that_cannot_be_timed_leaves_seconds_that_are_contended(run, monkeypatch):
    monkeypatch.setattr(scheduler, "time_alone", lambda _: (each for each in ()))
    runs = run(seeds=1)
    assert runs["concurrent"].tolist() == [True] * 2
    assert runs["timed_seed"].isna().all()
    assert runs["wall_s"].tolist() == [1.0] * 2


@pytest.mark.parametrize(
    ("how", "settings", "contended"),
    [
        (TWO, {"max_seconds": 5.0}, True),
        (Execution(jobs=2, scheduler="tcp://here:1"), {}, True),
        (TWO, {"scored_on": "validation"}, True),
        (Execution(jobs=1), {}, False),
    ],
    ids=["seconds end fits", "cluster", "tuning", "one at a time"],
)
def test_who_keeps_seconds_of_its_own(run, timed, monkeypatch, how, settings, contended):
    monkeypatch.setattr(scheduler, "threads_of", lambda _: 2)
    if "scored_on" in settings:
        monkeypatch.setattr(Settings, "scored_on", "validation")
        settings = {}
    runs = run(how, seeds=2, **settings)
    assert timed == []
    assert runs["concurrent"].tolist() == [contended] * 4
    assert runs["timed_seed"].isna().all()
    assert runs["wall_s"].tolist() == [1.0] * 4


def test_two_processes_time_one_after_the_other(run, timed, tmp_path):
    """And what the first has timed is not timed by the second, whose tables have its seconds all the same."""

    class Meanwhile(Silent):
        def finish(self, result):
            if not held.is_set():
                other.start()
                assert held.wait(20)
            finished.append(result)

    def first():
        with alone(tmp_path / "out" / "runs"):
            held.set()
            while len(finished) < 2:
                time.sleep(0.01)
            time.sleep(0.2)
            assert timed == []
            for result in finished:
                result.alone = [(20.0, 6.0, 6.0)]
                run_files.write_run(tmp_path / "out", result)

    held, finished, other = threading.Event(), [], threading.Thread(target=first)
    runs = run(seeds=1, log=Meanwhile())
    other.join(20)
    assert timed == []
    assert runs["wall_s"].tolist() == [3.0] * 2
    assert not (tmp_path / "out" / "runs" / ".lock").exists()


@pytest.fixture
def found(in_process, values, tmp_path, monkeypatch):
    """The values of a study of two methods with blocks of two, made in steps of so many seeds."""
    monkeypatch.setattr(metrics.Evaluator, "evaluate_final", lambda *_: [])  # it takes most of the time

    def execution(name, *steps, reverse=False):
        small = {**SMALL, "methods": ("vae", "iterative"), "n_train": 20, "n_test": 10, "max_flops": 1e6, "block": 2}
        for seeds in steps:
            plan = resolve(Settings(**small, seeds=seeds))
            execute(plan, tmp_path / name, Execution(jobs=2 if reverse else 1), Silent(), "a command")
        return values(tmp_path / name)

    return execution


def test_values_do_not_depend_on_how_a_study_came_about(found, monkeypatch, in_process):
    """All at once, seed by seed, or in another order; to the bit."""
    whole = found("whole", 3)
    assert len(in_process) == 6
    plain = scheduler.run_all
    resumed = found("resumed", 1, 3)
    monkeypatch.setattr(scheduler, "run_all", lambda specs, *rest: plain(specs[::-1], *rest))
    other = found("reversed", 2, 3, reverse=True)
    assert len(in_process) == 18
    for tables_of in (resumed, other):
        for one, two in zip(whole, tables_of, strict=True):
            pd.testing.assert_frame_equal(one, two, check_exact=True)

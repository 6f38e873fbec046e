"""Timing runs: the order of fits, that nothing but the method is timed, and what is refused."""

import errno
import gc
import itertools
import math
import os
import re
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass, replace
from types import SimpleNamespace

import click
import numpy as np
import pandas as pd
import pytest
import torch

import datasets
from bench.cli.timing import silent
from bench.config.schema import TimingSettings
from bench.timing import run
from bench.timing.ratios import comparisons
from bench.timing.run import ARMS, planned, time_fit
from datasets.base import draw
from methods.contract.method import Method, NullLedger

CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None  # before any test pins


@pytest.fixture
def one_fit(monkeypatch):
    """Fits that take no time, for tests of their order."""
    monkeypatch.setattr(run, "_fit", lambda *_: (1.0, 1.0, 1))


def order(seed, rounds=5):
    settings = TimingSettings(methods=("vae", "mapa", "oracle"), seed=seed, rounds=rounds, n_train=20)
    return [(t.round, t.position, t.method, t.arm) for t in run.measure(settings, planned(settings))]


def by_round(fits):
    return [[fit[2:] for fit in group] for _, group in itertools.groupby(fits, lambda fit: fit[0])]


def test_every_round_has_every_arm_once_in_an_order_of_its_own(one_fit):
    fits = order(0)
    arms = set(itertools.product(("vae", "mapa", "oracle"), ARMS))
    assert [(number, position) for number, position, *_ in fits] == list(itertools.product(range(6), range(1, 7)))
    assert all(set(each) == arms and len(each) == len(arms) for each in by_round(fits))
    assert len({tuple(each) for each in by_round(fits)}) == 6


def test_the_order_is_that_of_the_seed(one_fit):
    assert order(3) == order(3)
    assert order(3) != order(4)


def test_no_arm_is_favoured_by_its_place(one_fit):
    rounds = 600
    table = pd.DataFrame(order(0, rounds), columns=["round", "position", "method", "arm"])
    means = table.groupby(["method", "arm"])["position"].mean()
    assert np.abs(means - 3.5).max() < 4 * math.sqrt((6**2 - 1) / 12 / rounds)
    wide = table.pivot(index="round", columns=["method", "arm"], values="position")
    first = (wide["vae"]["A"] < wide["vae"]["A'"]).mean()
    assert abs(first - 0.5) < 4 * math.sqrt(0.25 / rounds)


@pytest.fixture
def measured(offer, sleeper):
    """Time two methods, under the names one and two, for a few rounds on few data."""

    def measure(one, two=sleeper, **fields):
        offer("one", one)
        offer("two", two)
        asked = {"methods": ("one", "two"), "dataset": "circle", "n_train": 20, "rounds": 5}
        return run.run(TimingSettings(**asked | fields), None, silent)

    return measure


def test_a_method_that_sleeps_twice_as_long_takes_twice_the_time(measured, sleeper):
    result = measured(sleeper(8 * sleeper.seconds), sleeper(4 * sleeper.seconds))
    [found] = comparisons(result.times, 0)
    assert found.ratio.value == pytest.approx(2, rel=0.2)
    assert found.verdict == "slower"
    assert all(t.wall_s >= 4 * sleeper.seconds > t.cpu_s for t in result.timings)


def test_one_method_under_two_names_is_indistinguishable(measured, sleeper):
    [found] = comparisons(measured(sleeper).times, 0)
    assert found.verdict == "indistinguishable"


def test_the_warm_up_round_is_not_counted(measured, watching, clock):
    calls = itertools.count()
    result = measured(watching(lambda _: clock.sleep(100 if next(calls) < 2 else 1)))
    assert next(calls) == 12
    assert [t.round for t in result.timings] == [number for number in range(1, 6) for _ in range(4)]
    assert [t.wall_s for t in result.timings if t.method == "one"] == pytest.approx([1] * 10)


def test_what_sets_a_fit_up_is_off_the_clock(measured, sleeper, offer, clock):
    def slowly(latent_dim=None):
        clock.sleep(100)
        problem = datasets.load("circle")

        def decoder(z):
            clock.sleep(100)
            return problem.decoder(z)

        return replace(problem, decoder=decoder)

    @dataclass(frozen=True)
    class Elaborate(sleeper):
        def __post_init__(self):
            clock.sleep(100)

    offer("slow", slowly, "datasets")
    result = measured(Elaborate, dataset="slow")
    assert clock.now > 1000
    assert [t.wall_s for t in result.timings] == pytest.approx([sleeper.seconds] * 20)


def test_work_before_the_first_yield_and_after_the_last_is_on_the_clock(measured, clock):
    @dataclass(frozen=True)
    class Eager(Method):
        def fit(self, task):
            clock.sleep(1)  # when it is called: this is no generator
            return self.rest()

        def rest(self):
            clock.sleep(2)
            yield
            clock.sleep(4)

    assert [t.wall_s for t in measured(Eager).timings if t.method == "one"] == pytest.approx([7] * 10)


def test_every_fit_starts_alike_and_counts_nothing(measured, watching):
    starts = []

    def look(task):
        draw = torch.randn(3, generator=task.generator)
        weights = torch.cat([p.detach().flatten() for p in task.model.parameters()])
        starts.append((task.train.clone(), task.validation.clone(), weights, draw))
        assert type(task.ledger) is NullLedger
        for tensor in (task.train, task.validation, *task.model.parameters()):
            tensor.data.zero_()

    measured(watching(look), watching(look))
    assert len(starts) == 24
    assert all(torch.equal(a, b) for start in starts for a, b in zip(start, starts[0], strict=True))
    assert len(starts[0][0]) == len(starts[0][1]) == 20


def test_fits_are_to_the_data_of_the_seed(measured, watching):
    seen = []
    measured(watching(lambda task: seen.append(task.train)), seed=4)
    expected = draw(datasets.load("circle"), 4, 20, 20, 1).train.float()
    assert all(torch.equal(train, expected) for train in seen)


def test_a_fit_stops_after_the_steps_asked_for(measured, watching):
    looks = []
    result = measured(watching(looks.append, 10**9), max_steps=7)
    assert len(looks) == 12 * 7
    assert {(t.method, t.steps) for t in result.timings} == {("one", 7), ("two", 1)}


def test_a_fit_that_is_not_stopped_goes_to_its_end(measured, watching):
    result = measured(watching(lambda _: None, 23))
    assert {t.steps for t in result.timings if t.method == "one"} == {23}


def test_garbage_is_collected_before_a_fit_and_not_within(measured, watching):
    class Cycle:
        def __init__(self):
            self.itself = self

    left, seen = [], []

    def look(task):
        seen.append((gc.isenabled(), [cycle() for cycle in left]))
        left[:] = [weakref.ref(Cycle())]

    measured(watching(look), watching(look))
    assert all(not enabled and cycles in ([], [None]) for enabled, cycles in seen)
    assert gc.isenabled()


@pytest.mark.skipif(CORES is None, reason="the system does not pin processes")
def test_fits_run_on_one_thread_and_one_core_and_others_as_before(measured, watching, monkeypatch):
    seen = set()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    torch.set_num_threads(2)
    try:
        result = measured(
            watching(
                lambda _: seen.add((torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], *os.sched_getaffinity(0)))
            )
        )
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(1)
    assert seen == {(1, "1", result.provenance["core"])}
    assert (after, os.environ["OMP_NUM_THREADS"], os.sched_getaffinity(0)) == (2, "3", CORES)


def test_where_the_system_does_not_pin(measured, sleeper, monkeypatch):
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: (_ for _ in ()).throw(PermissionError()))
    assert measured(sleeper(0)).provenance["core"] is None
    monkeypatch.delattr(os, "sched_setaffinity")
    monkeypatch.delattr(os, "sched_getaffinity")
    assert measured(sleeper(0)).provenance["core"] is None


def test_processor_time_is_that_of_all_threads_and_of_children(watching):
    spin = "import time; t = time.process_time()\nwhile time.process_time() - t < 0.2: pass"

    def busy(task):
        thread = threading.Thread(target=exec, args=(spin.replace("process_time", "thread_time"), {}))
        thread.start()
        thread.join()
        subprocess.run([sys.executable, "-c", spin], check=True)

    _, cpu, _ = time_fit(watching(busy)(), SimpleNamespace(train=SimpleNamespace(is_cuda=False)), None)
    assert cpu >= 0.4


def test_the_device_has_finished_whenever_the_clock_is_read(monkeypatch, watching, clock):
    events = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: events.append("synchronise"))
    monkeypatch.setattr(clock, "perf_counter", lambda: events.append("clock") or 0.0)
    method = watching(lambda _: events.append("work"))()
    time_fit(method, SimpleNamespace(train=SimpleNamespace(is_cuda=True)), None)
    assert events == ["synchronise", "clock", "work", "synchronise", "clock"]


@pytest.mark.parametrize("error", [ValueError("no\n good"), SystemExit(3)])
def test_a_method_that_raises(timed, watching, tmp_path, unchanged, error):
    calls = itertools.count(1)

    def look(task):
        click.echo("about to fail")
        if next(calls) == 6:
            raise error

    with unchanged(tmp_path):
        end = timed(watching(look), "--out", tmp_path / "out")
    assert (end.code, end.out) == (1, "")
    line = end.err.splitlines()[-1]
    assert re.fullmatch(r"error: circle / one / seed 0 failed in round 2: (ValueError: no good|SystemExit: 3)", line)
    assert "Traceback" not in end.err


def test_a_method_that_yields_nothing(timed, watching):
    end = timed(watching(lambda _: None, 0), "--quiet", "--out", "unused")
    assert end.code == 1
    assert end.err == (
        "error: circle / one / seed 0 failed in the warm-up round: "
        "RuntimeError: fit ended without yielding a fitted model\n"
    )


def test_an_interruption(timed, watching, tmp_path, unchanged):
    def look(task):
        raise KeyboardInterrupt

    with unchanged(tmp_path):
        end = timed(watching(look), "--out", tmp_path / "out")
    assert (end.code, end.out, end.err) == (130, "", "interrupted; nothing was written\n")
    assert CORES is None or os.sched_getaffinity(0) == CORES


def test_a_folder_that_holds_timings_is_left_alone(timed, watching, sleeper, tmp_path, unchanged):
    assert timed(sleeper(), "--quiet", "--out", tmp_path / "out").code == 0
    with unchanged(tmp_path):
        end = timed(watching(lambda _: pytest.fail("it was not refused")), "--out", tmp_path / "out")
    assert (end.code, end.out) == (2, "")
    assert end.err == f"error: {tmp_path}/out holds timings already; use another --out\n"


def test_methods_of_the_house(cli):
    end = cli("timing", "-m", "vae,oracle,iterative", "-d", "circle", "--n-train", 40, "--rounds", 5, "--max-steps", 1)
    assert end.code == 0, end.err
    assert end.out.count("of oracle's time") == end.out.count("of iterative's time") == 1


def test_labels_are_those_of_the_fits_however_they_are_spelled(cli):
    methods, dataset = "vae[learning_rate=1e-2],oracle", "circle[ n_train = 40 ]"
    end = cli("timing", "-m", methods, "-d", dataset, "--rounds", 5, "--max-steps", 1)
    assert end.code == 0, end.err
    assert "circle, 40 training points" in end.out
    assert "vae[learning_rate=0.01]" in end.out


BAD = [
    (("-m", "vae"), "--methods needs at least two names to compare, got vae"),
    (("-m", ""), "--methods needs at least two names to compare, got none"),
    (("-m", "vae,mapa,vae"), "--methods names 'vae' twice"),
    (("-m", "vae[learning_rate=1e-2],vae[learning_rate=0.01]"), "--methods names 'vae[learning_rate=0.01]' alone"),
    (("-m", "vae,mpaa"), "unknown method 'mpaa' - did you mean 'mapa'?"),
    (("-d", "circel"), "unknown dataset 'circel' - did you mean 'circle'?"),
    (("-d", "circle,torus"), "--dataset takes exactly one name, got 'circle,torus'"),
    (("-d", ""), "--dataset takes exactly one name, got ''"),
    (("--rounds", "4"), "--rounds must be a whole number of at least 5 and at most 10,000, got 4"),
    (("--plugin", "nowhere.py"), "nowhere.py is not a file"),
    (("--quiet",), "--quiet without --out"),
    (("--out", "full"), "full is not empty (study.json, ...); use another --out"),
    (("--out", "file"), "file is a file; --out needs a folder"),
    (("--out", "file/below"), "file is a file; --out needs a folder"),
    (("--datasets", "circle"), "--dataset"),
    (("vae",), "unexpected extra argument"),
]


@pytest.mark.parametrize(("args", "message"), BAD, ids=[" ".join(args) for args, _ in BAD])
def test_bad_usage_is_one_line_and_writes_nothing(cli, tmp_path, monkeypatch, unchanged, args, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "study.json").write_text("{}")
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "measure", lambda *_: pytest.fail("it was not refused"))
    with unchanged(tmp_path):
        end = cli("timing", *args)
    assert (end.code, end.out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", end.err)
    assert message in end.err


def test_a_method_that_skips(timed, sleeper):
    @dataclass(frozen=True)
    class Skipping(sleeper):
        def skip(self, latent_dim, data_dim, n_train):
            return f"no use for {n_train} points in {data_dim} dimensions"

    end = timed(Skipping, "--quiet", "--out", "unused")
    assert end.code == 2
    assert end.err == "error: method 'one' skips dataset 'circle': no use for 20 points in 2 dimensions\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-m", "vae,iterative"), "digits has no known noise variance: use --observation-noise learned"),
        (("-m", "vae,oracle", "--observation-noise", "learned"), "digits has no known true model, which oracle needs"),
    ],
)
def test_what_needs_a_true_model_is_refused_where_there_is_none(cli, tmp_path, monkeypatch, unchanged, args, message):
    monkeypatch.setattr(run, "_fit", lambda *_: pytest.fail("it was not refused"))
    with unchanged(tmp_path):
        end = cli("timing", *args, "-d", "digits", "--out", tmp_path / "out")
    assert (end.code, end.out, end.err.count("\n")) == (2, "", 1)
    assert message in end.err


def test_observations_can_be_timed(cli):
    end = cli(
        "timing", "-m", "vae,mapa", "-d", "digits", "--observation-noise", "learned", "--rounds", 5, "--max-steps", 1
    )
    assert end.code == 0, end.err


def test_a_folder_that_cannot_be_written_to(timed, sleeper, tmp_path, monkeypatch):
    def refused(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(run, "TemporaryFile", refused)
    end = timed(sleeper(), "--out", tmp_path / "out")
    assert end.code == 2
    assert end.err == f"error: {tmp_path} cannot be written to: Read-only file system\n"

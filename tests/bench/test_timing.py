"""Time comparisons: the statistics by simulation, and that nothing but the method is timed."""

import gc
import itertools
import json
import math
import os
import re
import subprocess
import sys
import weakref
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace

import click
import numpy as np
import pandas as pd
import pytest
import torch

import datasets
from bench import timing
from bench.registry import registry
from bench.timing import ARMS, Comparison, Ratio, Settings, Timing, comparisons, self_ratios, time_fit, time_ratio
from datasets.base import draw
from methods.base import FreeLedger

RUNS = 200
ROUNDS = 10
SECONDS = 5e-3
CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None  # before any test pins


@pytest.fixture(autouse=True)
def few_objects():
    """Garbage is collected before each fit, which takes long among all that tests have imported."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def fewer(monkeypatch):
    """Fewer resamples, for hundreds of intervals; what they cost in precision is far below what is asked of them."""
    monkeypatch.setattr(timing, "RESAMPLES", 999)


def simulated(random, seconds, noise, rounds=ROUNDS):
    """Times (rounds, 2) of each method, noisy by a factor, in rounds that are fast and slow for all of them alike."""
    weather = random.lognormal(0, 0.5, (rounds, 1))
    return {name: mean * weather * random.lognormal(0, noise, (rounds, 2)) for name, mean in seconds.items()}


def verdicts(seconds, noise, runs=RUNS):
    random = np.random.default_rng(0)
    return [comparisons(simulated(random, seconds, noise), 0)[0].verdict for _ in range(runs)]


def test_methods_that_take_the_same_time_are_indistinguishable(fewer):
    assert verdicts({"a": 1.0, "b": 1.0}, 0.05).count("indistinguishable") >= 0.95 * RUNS


@pytest.mark.parametrize(("seconds", "verdict"), [(1.1, "slower"), (1 / 1.1, "faster")])
def test_ten_percent_under_one_percent_of_noise_is_found(fewer, seconds, verdict):
    assert set(verdicts({"a": seconds, "b": 1.0}, 0.01, 50)) == {verdict}


def test_a_difference_below_the_noise_is_never_called(fewer):
    assert set(verdicts({"a": 1.01, "b": 1.0}, 0.05)) == {"indistinguishable"}


def test_an_interval_that_excludes_one_is_not_called_below_the_noise_floor():
    random = np.random.default_rng(0)
    mean, apart = 1.02 * random.lognormal(0, 1e-4, ROUNDS), random.normal(0, 0.05, ROUNDS)
    [found] = comparisons({"a": np.stack([mean + apart, mean - apart], 1), "b": np.ones((ROUNDS, 2))}, 0)
    assert 1.019 < found.ratio.low < found.ratio.high < 1.021
    assert found.noise_floor > 0.021
    assert found.verdict == "indistinguishable"


@pytest.mark.parametrize("rounds", [5, 10])
def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says(fewer, rounds):
    random, runs = np.random.default_rng(1), 500
    found = [time_ratio(*random.lognormal([[math.log(1.3)], [0]], 0.1, (2, rounds)), seed=0) for _ in range(runs)]
    coverage = sum(ratio.low <= 1.3 <= ratio.high for ratio in found) / runs
    assert 0.90 <= coverage <= 0.97


def test_the_ratio_is_the_median_over_rounds():
    random = np.random.default_rng(2)
    first, second = random.lognormal(0, 0.3, (2, 7))
    found = time_ratio(first, second, 0)
    assert found.value == pytest.approx(np.median(first / second))
    assert (first / second).min() <= found.low < found.value < found.high <= (first / second).max()


def test_the_other_way_round_is_the_inverse():
    first, second = np.random.default_rng(3).lognormal(0, 0.3, (2, ROUNDS))
    one, other = time_ratio(first, second, 0), time_ratio(second, first, 0)
    assert (1 / other.value, 1 / other.high, 1 / other.low) == pytest.approx((one.value, one.low, one.high))


def test_what_slows_a_whole_round_cancels():
    random = np.random.default_rng(4)
    first, second = random.lognormal(0, 0.1, (2, ROUNDS))
    weather = random.lognormal(0, 2, ROUNDS)
    found, expected = time_ratio(first * weather, second * weather, 0), time_ratio(first, second, 0)
    assert asdict(found) == pytest.approx(asdict(expected))


def test_a_fit_that_was_held_up_moves_the_ratio_no_further_than_its_neighbour():
    times = simulated(np.random.default_rng(5), {"a": 1.0, "b": 1.0}, 0.01)
    times["a"][3, 0] *= 50
    [found] = comparisons(times, 0)
    assert found.ratio.value == pytest.approx(1, abs=0.02)
    assert found.verdict == "indistinguishable"


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "indistinguishable"), (0.5, "faster"), (3.0, "slower")])
def test_times_without_any_variance(factor, verdict):
    times = {"a": np.full((5, 2), factor), "b": np.ones((5, 2))}
    [found] = comparisons(times, 0)
    assert asdict(found.ratio) == pytest.approx({"value": factor, "low": factor, "high": factor})
    assert (found.noise_floor, found.verdict) == (0, verdict)


def test_the_first_method_is_compared_with_each_other_one_and_the_noisier_of_two_sets_the_floor():
    random = np.random.default_rng(6)
    times = {name: random.lognormal(0, noise, (ROUNDS, 2)) for name, noise in (("a", 0.02), ("b", 0.2), ("c", 0.001))}
    itself, found = self_ratios(times, 0), comparisons(times, 0)
    assert [(c.first, c.second) for c in found] == [("a", "b"), ("a", "c")]
    assert itself["b"].reach > itself["a"].reach > itself["c"].reach
    assert [c.noise_floor for c in found] == [itself["b"].reach, itself["a"].reach]
    assert itself["a"] == time_ratio(times["a"][:, 0], times["a"][:, 1], 0)
    assert found[1].ratio == time_ratio(times["a"].mean(1), times["c"].mean(1), 0)


@pytest.mark.parametrize(
    ("low", "high", "reach"), [(0.99, 1.03, 0.03), (1 / 1.03, 1.01, 0.03), (1.02, 1.03, 0.03), (1, 1, 0)]
)
def test_how_far_an_interval_reaches_from_one(low, high, reach):
    assert Ratio(1.0, low, high).reach == pytest.approx(reach)


@pytest.mark.parametrize(
    ("ratio", "floor", "verdict"),
    [
        ((1.10, 1.08, 1.12), 0.03, "slower"),
        ((1 / 1.10, 0.90, 0.92), 0.03, "faster"),
        ((1.10, 1.08, 1.12), 0.11, "indistinguishable"),
        ((1 / 1.10, 0.90, 0.92), 0.11, "indistinguishable"),
        ((1.10, 0.99, 1.30), 0.03, "indistinguishable"),
        ((0.90, 0.80, 1.01), 0.03, "indistinguishable"),
        ((1.0, 1.0, 1.0), 0.0, "indistinguishable"),
    ],
)
def test_a_verdict_needs_both_the_interval_and_the_floor(ratio, floor, verdict):
    assert Comparison("a", "b", Ratio(*ratio), floor).verdict == verdict


def test_what_a_comparison_says():
    fast = Comparison("mapa", "vae", Ratio(0.04123, 0.03512, 0.0451), 0.0312)
    assert timing.sentence(fast) == ("mapa takes 0.0412× [0.0351, 0.0451] of vae's time: faster (noise floor 3.1%).")
    alike = Comparison("a", "b", Ratio(1.0034, 0.9912, 1.0107), 0.12)
    assert timing.sentence(alike) == "a takes 1.003× [0.991, 1.011] of b's time: indistinguishable (noise floor 12%)."


@pytest.fixture
def one_fit(monkeypatch):
    """Fits that take no time, for tests of their order."""
    monkeypatch.setattr(timing, "_fit", lambda *_: (1.0, 1.0, 1))


def order(seed, rounds=5):
    settings = Settings(("vae", "mapa", "oracle"), seed=seed, rounds=rounds)
    return [(t.round, t.position, t.method, t.arm) for t in timing.measure(settings, registry())]


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


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    process_time = perf_counter

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """The clock that fits are timed by, in the place of the machine's."""
    made = Clock()
    monkeypatch.setattr(timing, "time", made)
    return made


@dataclass(frozen=True)
class Sleeper:
    """Sleeps, by the clock that times it, and yields once."""

    seconds: float = SECONDS

    def fit(self, task):
        timing.time.sleep(self.seconds)
        yield


def watching(look, count=1):
    """A method that calls look(task) before each of `count` yields."""

    @dataclass(frozen=True)
    class Watching:
        def fit(self, task):
            for _ in range(count):
                look(task)
                yield

    return Watching


@pytest.fixture
def measured(offer):
    """Time two methods, under the names one and two, for a few rounds on few data."""

    def run(one, two=Sleeper, **fields):
        offer("one", one)
        offer("two", two)
        settings = Settings(("one", "two"), "circle", 20, rounds=5)
        return timing.run(replace(settings, **fields), None, timing.silent)

    return run


def test_a_method_that_sleeps_twice_as_long_takes_twice_the_time(measured):
    result = measured(Sleeper(8 * SECONDS), Sleeper(4 * SECONDS))
    [found] = comparisons(result.times, 0)
    assert found.ratio.value == pytest.approx(2, rel=0.2)
    assert found.verdict == "slower"
    assert all(t.wall_s >= 4 * SECONDS > t.cpu_s for t in result.timings)


def test_one_method_under_two_names_is_indistinguishable(measured):
    [found] = comparisons(measured(Sleeper).times, 0)
    assert found.verdict == "indistinguishable"


def test_the_warm_up_round_is_not_counted(measured, clock):
    calls = itertools.count()
    result = measured(watching(lambda _: clock.sleep(100 if next(calls) < 2 else 1)))
    assert next(calls) == 12
    assert [t.round for t in result.timings] == [number for number in range(1, 6) for _ in range(4)]
    assert [t.wall_s for t in result.timings if t.method == "one"] == pytest.approx([1] * 10)


def test_what_sets_a_fit_up_is_off_the_clock(measured, offer, clock):
    def slowly(latent_dim=None):
        clock.sleep(100)
        problem = datasets.load("circle")

        def decoder(z):
            clock.sleep(100)
            return problem.decoder(z)

        return replace(problem, decoder=decoder)

    @dataclass(frozen=True)
    class Elaborate(Sleeper):
        def __post_init__(self):
            clock.sleep(100)

    offer("slow", slowly, "datasets")
    result = measured(Elaborate, dataset="slow")
    assert clock.now > 1000
    assert [t.wall_s for t in result.timings] == pytest.approx([SECONDS] * 20)


def test_work_before_the_first_yield_and_after_the_last_is_on_the_clock(measured, clock):
    @dataclass(frozen=True)
    class Eager:
        def fit(self, task):
            clock.sleep(1)  # when it is called: this is no generator
            return self.rest()

        def rest(self):
            clock.sleep(2)
            yield
            clock.sleep(4)

    assert [t.wall_s for t in measured(Eager).timings if t.method == "one"] == pytest.approx([7] * 10)


def test_every_fit_starts_alike_and_counts_nothing(measured):
    starts = []

    def look(task):
        draw = torch.randn(3, generator=task.generator)
        weights = torch.cat([p.detach().flatten() for p in task.model.parameters()])
        starts.append((task.train.clone(), task.validation.clone(), weights, draw))
        assert type(task.ledger) is FreeLedger
        for tensor in (task.train, task.validation, *task.model.parameters()):
            tensor.data.zero_()

    measured(watching(look), watching(look))
    assert len(starts) == 24
    assert all(torch.equal(a, b) for start in starts for a, b in zip(start, starts[0], strict=True))
    assert len(starts[0][0]) == len(starts[0][1]) == 20


def test_fits_are_to_the_data_of_the_seed(measured):
    seen = []
    measured(watching(lambda task: seen.append(task.train)), seed=4)
    expected = draw(datasets.load("circle"), 4, 20, 20, 1).train.float()
    assert all(torch.equal(train, expected) for train in seen)


def test_a_fit_stops_after_the_steps_asked_for(measured):
    looks = []
    result = measured(watching(looks.append, 10**9), max_steps=7)
    assert len(looks) == 12 * 7
    assert {(t.method, t.steps) for t in result.timings} == {("one", 7), ("two", 1)}


def test_a_fit_that_is_not_stopped_goes_to_its_end(measured):
    result = measured(watching(lambda _: None, 23))
    assert {t.steps for t in result.timings if t.method == "one"} == {23}


def test_garbage_is_collected_before_a_fit_and_not_within(measured):
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
def test_fits_run_on_one_thread_and_one_core_and_others_as_before(measured, monkeypatch):
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


def test_where_the_system_does_not_pin(measured, monkeypatch):
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: (_ for _ in ()).throw(PermissionError()))
    assert measured(Sleeper(0)).provenance["core"] is None
    monkeypatch.delattr(os, "sched_setaffinity")
    monkeypatch.delattr(os, "sched_getaffinity")
    assert measured(Sleeper(0)).provenance["core"] is None


def test_the_device_has_finished_whenever_the_clock_is_read(monkeypatch, clock):
    events = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: events.append("synchronise"))
    monkeypatch.setattr(clock, "perf_counter", lambda: events.append("clock") or 0.0)
    method = watching(lambda _: events.append("work"))()
    time_fit(method, SimpleNamespace(train=SimpleNamespace(is_cuda=True)), None)
    assert events == ["synchronise", "clock", "work", "synchronise", "clock"]


@pytest.fixture
def timed(cli, offer, clock):
    """`timing` of a method, under the name one, and of a sleeper, by a clock of the test's own."""

    def run(one, *more):
        offer("one", one)
        offer("two", Sleeper(1e-3))
        return cli("timing", "-m", "one,two", "-d", "circle", "--size", 20, "--rounds", 5, *more)

    return run


@pytest.mark.parametrize("error", [ValueError("no\n good"), SystemExit(3)])
def test_a_method_that_raises(timed, tmp_path, unchanged, error):
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


def test_a_method_that_yields_nothing(timed):
    end = timed(watching(lambda _: None, 0), "--quiet", "--out", "unused")
    assert end.code == 1
    assert end.err == (
        "error: circle / one / seed 0 failed in the warm-up round: "
        "RuntimeError: fit ended without yielding a fitted model\n"
    )


def test_an_interruption(timed, tmp_path, unchanged):
    def look(task):
        raise KeyboardInterrupt

    with unchanged(tmp_path):
        end = timed(watching(look), "--out", tmp_path / "out")
    assert (end.code, end.out, end.err) == (130, "", "interrupted; nothing was written\n")
    assert CORES is None or os.sched_getaffinity(0) == CORES


def test_what_is_told(timed, tmp_path):
    random = np.random.default_rng(0)
    end = timed(watching(lambda _: timing.time.sleep(random.normal(3e-3, 1e-4))), "--out", tmp_path / "a/b")
    assert end.code == 0
    progress = end.err.splitlines()
    assert [line.split()[0] for line in progress] == ["[warm-up]", *(f"[{n}/5]" for n in range(1, 6))]
    assert all(re.search(r" one [23]\S* ms \(1 step\), two (1 ms|1000 µs) \(1 step\)", line) for line in progress)
    for pattern in (
        r"^circle, 20 data, seed 0, 5 rounds",
        r"^one / two +\S+× +\[\S+, \S+\] +\S+% +slower",
        r"^one A / A' +\S+× +\[\S+, \S+\] +\S+%",
        r"^two A / A' +1\.000× +\[1\.000, 1\.000\] +0%",
        r"^one takes (2\.9|3\.0)\d+× \[\S+, \S+\] of two's time: slower \(noise floor \S+%\)\.$",
        rf"^Timings:  {tmp_path}/a/b/timings.csv",
    ):
        assert re.search(pattern, end.out, re.MULTILINE), pattern


def test_quiet_tells_nothing_and_writes_all_the_same(timed, tmp_path):
    end = timed(Sleeper(), "--quiet", "--out", tmp_path)
    assert (end.code, end.out, end.err) == (0, "", "")
    assert {path.name for path in tmp_path.iterdir()} == {"timing.json", "timings.csv", "timings.parquet"}


def test_without_a_folder_nothing_is_written(timed, tmp_path, unchanged, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with unchanged(tmp_path):
        end = timed(Sleeper())
    assert end.code == 0
    assert "of two's time" in end.out
    assert "Timings:" not in end.out


def test_the_files_hold_every_fit_and_what_follows_from_them(timed, tmp_path):
    random = np.random.default_rng(0)
    method = watching(lambda _: timing.time.sleep(random.lognormal()))
    timed(method, "--quiet", "--seed", 4, "--max-steps", 2, "--out", tmp_path)
    table = pd.read_csv(tmp_path / "timings.csv")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "timings.parquet"), table, check_dtype=False)
    assert list(table) == ["round", "position", "method", "arm", "wall_s", "cpu_s", "steps"]
    assert len(table) == 5 * 4
    held = json.loads((tmp_path / "timing.json").read_text())
    wide = table.pivot(index="round", columns=["method", "arm"], values="wall_s")
    times = {name: wide[name][list(ARMS)].to_numpy() for name in ("one", "two")}
    [found] = comparisons(times, 4)
    assert held["ratios"] == [{**asdict(found), "verdict": found.verdict}]
    assert held["self_ratios"] == {name: asdict(ratio) for name, ratio in self_ratios(times, 4).items()}
    expected = {"methods": ["one", "two"], "dataset": "circle", "size": 20, "seed": 4, "rounds": 5, "max_steps": 2}
    assert expected.items() <= held["settings"].items()
    assert held["command"].startswith("python -m bench timing -m one,two")
    assert {"torch", "versions", "processor", "core", "cores", "load_average_before"} <= held["provenance"].keys()
    assert held["provenance"]["started"] <= held["provenance"]["finished"]


def test_the_same_folder_again_holds_the_new_timings(timed, tmp_path):
    for seed in (1, 2):
        assert timed(Sleeper(), "--quiet", "--seed", seed, "--out", tmp_path).code == 0
    assert json.loads((tmp_path / "timing.json").read_text())["settings"]["seed"] == 2
    assert len(list(tmp_path.iterdir())) == 3


def test_a_bar_passes_on_what_it_shows():
    fits = [Timing(number, 1, "one", "A", 1.0, 1.0, 1) for number in range(6)]
    assert list(timing.bar(iter(fits), Settings(("one", "two"), rounds=5))) == fits


def test_methods_of_the_house(cli):
    end = cli("timing", "-m", "vae,oracle,iterative", "-d", "circle", "--size", 40, "--rounds", 5, "--max-steps", 1)
    assert end.code == 0, end.err
    assert end.out.count("of oracle's time") == end.out.count("of iterative's time") == 1


BAD = [
    (("-m", "vae"), "--methods needs at least two names to compare, got vae"),
    (("-m", ""), "--methods needs at least two names to compare, got none"),
    (("-m", "vae,mapa,vae"), "--methods names 'vae' twice"),
    (("-m", "vae,mpaa"), "unknown method 'mpaa' - did you mean 'mapa'?"),
    (("-d", "circel"), "unknown dataset 'circel' - did you mean 'circle'?"),
    (("-d", "circle,torus"), "--dataset takes exactly one name, got 'circle,torus'"),
    (("-d", ""), "--dataset takes exactly one name, got ''"),
    (("--rounds", "4"), "--rounds must be a whole number of at least 5, got 4"),
    (("--rounds", "many"), "many"),
    (("--max-steps", "0"), "--max-steps must be a whole number of at least 1, got 0"),
    (("--seed", "-1"), "--seed must be a whole number of at least 0, got -1"),
    (("--size", "0"), "--size must be a whole number of at least 1, got 0"),
    (("--noise", "x"), "--noise must be one of known, learned, got 'x'"),
    (("--device", "tpu"), "--device must be one of cpu, cuda, got 'tpu'"),
    (("--plugin", "nowhere.py"), "nowhere.py is not a file"),
    (("--quiet",), "--quiet without --out"),
    (("--out", "full"), "full is not empty and holds no timings (study.json, ...)"),
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
    monkeypatch.setattr(timing, "measure", lambda *_: pytest.fail("it was not refused"))
    with unchanged(tmp_path):
        end = cli("timing", *args)
    assert (end.code, end.out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", end.err)
    assert message in end.err


def test_a_method_that_skips(timed):
    @dataclass(frozen=True)
    class Skipping(Sleeper):
        def skip(self, latent_dim, data_dim, size):
            return f"no use for {size} data in {data_dim} dimensions"

    end = timed(Skipping, "--quiet", "--out", "unused")
    assert end.code == 2
    assert end.err == "error: method 'one' skips dataset 'circle': no use for 20 data in 2 dimensions\n"


def test_a_folder_that_cannot_be_written_to(timed, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    end = timed(Sleeper(), "--out", tmp_path / "out")
    assert end.code == 2
    assert end.err == f"error: {tmp_path} cannot be written to\n"


def test_help_is_fast_and_teaches():
    code = "import sys; sys.argv = ['bench', 'timing', '--help']\nfrom bench.cli import main\ntry:\n    main()\n"
    code += "finally:\n    assert not {'torch', 'numpy', 'pandas', 'scipy'} & sys.modules.keys()"
    end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert end.returncode == 0, end.stderr
    for word in ("--methods", "--max-steps", "noise floor", "python -m bench timing -m", "Exit code: 0"):
        assert word in end.stdout


def test_the_command_is_among_the_commands(cli):
    assert "timing" in cli("--help").out

"""Tuning: which trials are made, what they are scored on, and which one wins."""

import dataclasses
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

import datasets.base
from bench.config.schema import TuneSettings
from bench.fit import runner
from bench.fit.runner import run_one
from bench.registry.declared import search
from bench.registry.registry import registry
from bench.store import tables
from bench.study import plan
from bench.tuning.design import FRESH_SEEDS, Trial, trials
from bench.tuning.selection import Confirmation, best_trials, choose
from datasets.base import draw
from methods.common.posteriors import Prior
from methods.contract.method import Fitted, Method
from methods.contract.search_space import Choice, LogUniform, Range, Uniform


@dataclass(frozen=True)
class Point(Method):
    """A single Gaussian at the training mean plus a shift in standard units; its log p(x) is known in closed form."""

    shift: float = 2.0
    idle: int = 0
    breaks: bool = False

    search: ClassVar[Mapping[str, Range]] = {"shift": Choice((-1.0, 0.0, 1.0))}

    def fit(self, task):
        if self.breaks or self.shift == 77:
            raise ArithmeticError("no")
        last = task.model.network[-1]
        last.weight.data.zero_()
        last.bias.data.fill_(self.shift)
        task.ledger.charge("shift", 5.0)
        for _ in range(3):
            yield Fitted(task.model, Prior(task.latent_dim))


@pytest.fixture
def tune(cli, in_process, offer, monkeypatch):
    """`tune` of Point, offered as 'point', on small data, with its runs run here, without a warm-up."""
    offer("point", Point())
    monkeypatch.setattr(runner, "_warm_up", lambda *_: None)

    def run(out, *more, datasets="circle", trials=5):
        small = ("--trials", trials, "--seeds", 3, "--n-train", 40, "--jobs", 1)
        args = ("-m", "point", "-d", datasets, *small, "--out", out)
        return cli("tune", *args, *more)

    return run


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def tuned(tune, kept, tmp_path, in_process):
    """A folder in which Point is tuned on circle; the runs made for that are not in `in_process`."""
    if not (kept / "out").exists():
        assert tune(kept / "out", "--quiet").code == 0
        assert len(in_process) == 4 * 3 + 2 * FRESH_SEEDS  # three choices and the defaults
        in_process.clear()
    return shutil.copytree(kept / "out", tmp_path / "out")


def log_density_of_a_point(x, train, shift, noise):
    centre = train.float().mean(0) + shift * (train.float() - train.float().mean(0)).square().mean().sqrt()
    squares = (x - centre.double()).square().sum(-1)
    return -squares / (2 * noise) - x.shape[1] / 2 * math.log(2 * math.pi * noise)


def test_ranges_map_the_unit_interval():
    assert [Uniform(-1, 3).at(u) for u in (0, 0.5)] == [-1, 1]
    assert [LogUniform(1e-3, 1e-1).at(u) for u in (0, 0.5)] == [1e-3, 1e-2]
    assert [Choice((4, 5, 6)).at(u) for u in (0, 0.34, 0.67, 0.999)] == [4, 5, 6, 6]


def plan_of(name, **given):
    return plan.resolve(TuneSettings(methods=(name,), datasets=("circle",), set={name: given} if given else {}))


def test_trials_are_the_defaults_and_points_spread_evenly():
    known = registry()
    found = trials("vae", 17, plan_of("vae"))
    assert (found[0], [trial.number for trial in found]) == (Trial("vae", 0, "vae"), list(range(17)))
    values = [known.parameters(trial.label) for trial in found[1:]]
    share = np.log([v["learning_rate"] / 1e-3 for v in values]) / math.log(30)
    assert np.abs(np.sort(16 * share) - np.arange(16) - 0.5).max() < 0.5 + 0.05  # by rounding to three digits
    assert {size: [v["batch_size"] for v in values].count(size) for size in (25, 50, 100, 250)} == dict.fromkeys(
        (25, 50, 100, 250), 4
    )


def test_more_trials_add_to_fewer():
    asked = plan_of("iterative")
    many = trials("iterative", 12, asked)
    for count in (1, 2, 3, 5, 9, 12):
        assert trials("iterative", count, asked) == many[:count]


def test_what_is_set_is_not_searched():
    """Each trial has what --set gives, and what is left is spread as evenly as if it were all."""
    known = registry()
    found = trials("vae", 9, plan_of("vae", restarts=1, steepness=4.0))
    values = [known.parameters(trial.label) for trial in found[1:]]
    assert {frozenset(each) for each in values} == {frozenset(["learning_rate", "batch_size"])}
    sizes = [v["batch_size"] for v in values]
    assert {size: sizes.count(size) for size in (25, 50, 100, 250)} == dict.fromkeys((25, 50, 100, 250), 2)


def test_each_search_is_of_fields_and_keeps_the_training_budget():
    known = registry()
    tunable = [name for name in known.methods if search(known, name)]
    assert {"vae", "iterative"} <= set(tunable)
    for name in tunable:
        assert "steps" not in search(known, name)
        assert len(trials(name, 4, plan_of(name))) == 4


def test_a_point_that_repeats_another_is_no_trial(offer):
    offer("point", Point())
    found = trials("point", 20, plan_of("point"))
    assert [trial.number for trial in found] == [0, 1, 2, 3]
    assert {trial.label for trial in found} == {"point", "point[shift=-1]", "point[shift=0]", "point[shift=1]"}


def test_a_trial_scores_the_mean_log_likelihood_of_validation_data(tuned):
    rows = tables.read_table(tuned, "trials")
    problem = registry().make_problem("circle", None)
    assert len(rows) == 4 * 3 + 2 * FRESH_SEEDS
    assert rows.groupby(["stage", "trial"])["seed"].unique().map(list).to_dict() == {
        **{("search", trial): [1000, 1001, 1002] for trial in range(4)},
        **{("confirmation", trial): [*range(2000, 2010)] for trial in (0, 1)},
    }
    for row in rows.itertuples():
        split = draw(problem, row.seed, 40, 40, 1)
        each = log_density_of_a_point(split.validation, split.train, row.p_shift, problem.noise_variance)
        assert row.score == pytest.approx(float(each.mean()), abs=2e-3)
        assert row.stderr == pytest.approx(float(each.std()) / math.sqrt(40), rel=1e-3)


def test_the_test_set_is_never_drawn(tune, tmp_path, monkeypatch):
    plain, opened = datasets.base.stream, []

    def stream(source, seed, name):
        opened.append((source, seed, name))
        return plain(source, seed, name)

    monkeypatch.setattr(datasets.base, "stream", stream)
    assert tune(tmp_path / "out", "--quiet").code == 0
    names = {name for source, _, name in opened if source == "circle"}
    assert {"train", "validation"} <= names
    assert "test" not in names


def test_the_best_is_chosen_and_told(tune, tmp_path):
    end = tune(tmp_path / "out", datasets="circle,absolute")
    assert end.code == 0
    content = json.loads((tmp_path / "out" / "tuned.json").read_text())
    assert content["datasets"] == {"circle": {"point": [{"shift": 0.0}]}, "absolute": {"point": [{"shift": 0.0}]}}
    assert (content["budget"]["trials"], content["budget"]["seeds"], content["budget"]["n_train"]) == (5, 3, 40)
    assert content["command"].startswith("python -m bench tune -m point")
    assert [choice["flops"] for choice in content["choices"]] == [4 * 3 * 5.0] * 2
    assert [choice["confirmation"]["flops"] for choice in content["choices"]] == [2 * FRESH_SEEDS * 5.0] * 2
    assert "shift=0" in end.out
    for choice in content["choices"]:
        assert f"{choice['dataset']} / point, tuning 1: {choice['reason']}." in end.out.splitlines()
    assert "0 choices of 2 are the defaults." in end.out
    assert "tuned.json" in end.out
    assert content["code"]
    assert content["search"] == {"point": {"shift": "Choice(values=(-1.0, 0.0, 1.0))"}}


def test_above_two_latent_dimensions_validation_is_scored_by_sampling(run_spec, offer):
    offer("point", Point(shift=0.0))
    spec = run_spec(method="point", dataset="linear_gaussian", latent_dim=3, scored_on="validation")
    (row,) = run_one(spec).rows
    problem = registry().make_problem("linear_gaussian", 3)
    split = draw(problem, 0, 40, 40, 1)
    each = log_density_of_a_point(split.validation, split.train, 0.0, problem.noise_variance)
    assert row.value == pytest.approx(float(each.mean()), abs=1e-3)


def test_a_trial_that_fails_cannot_win(tune, offer, tmp_path):
    @dataclass(frozen=True)
    class Risky(Point):
        search: ClassVar[Mapping[str, Range]] = {"shift": Choice((77.0, -9.0))}

    offer("point", Risky())
    assert tune(tmp_path / "out", "--quiet").code == 1
    content = json.loads((tmp_path / "out" / "tuned.json").read_text())
    assert content["datasets"] == {"circle": {"point": [{"shift": 2.0}]}}
    assert content["choices"][0]["unscored"] == 1


def test_a_tie_keeps_the_defaults(tune, offer, tmp_path):
    @dataclass(frozen=True)
    class Indifferent(Point):
        search: ClassVar[Mapping[str, Range]] = {"idle": Choice((1, 2, 3))}

    offer("point", Indifferent())
    end = tune(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "tuned.json").read_text())
    assert content["datasets"] == {"circle": {"point": [{"idle": 0}]}}
    assert "circle / point, tuning 1: the defaults are kept: no trial scored higher." in end.out
    assert "1 choice of 1 are the defaults." in end.out


def rows_of(stage, scores, trials):
    """Rows with scores (trials, seeds), NaN where a fit failed; trial i has the shift i."""
    shared = {"dataset": "d", "method": "point", "tuning": 1, "stage": stage, "flops": 1.0, "wall_s": 1.0}
    return [
        {**shared, "trial": i, "seed": k, "score": s, "p_shift": i, "counted": True}
        for i, line in zip(trials, scores, strict=True)
        for k, s in enumerate(line)
    ]


def choice_of(scores, offer, differences=(1.0,) * FRESH_SEEDS):
    """The choice for scores (trials, seeds) of a search, and differences from the defaults on fresh seeds, (seeds,)."""
    offer("point", Point(shift=0.0))
    rows = rows_of("search", scores, range(len(scores)))
    if best := best_trials(pd.DataFrame(rows), TuneSettings())["d", "point"]:
        defaults = np.where(np.equal(differences, math.inf), math.nan, np.linspace(-3, 2, FRESH_SEEDS))
        tried = np.linspace(-3, 2, FRESH_SEEDS) + np.where(np.equal(differences, -math.inf), math.nan, differences)
        rows += rows_of("confirmation", [defaults, np.where(np.isposinf(tried), 0, tried)], (0, best))
    (found,) = choose(pd.DataFrame(rows), plan_of("point"))
    return found


@pytest.mark.parametrize(
    ("scores", "trial", "best"),
    [
        ([[0, 0, 0], [9, 9, -9], [1, 1, 1]], 1, 9),
        ([[0, 0, 0], [9, -9, -9], [1, 1, 1]], 2, 1),
        ([[1, 1], [1, 1], [0, 2]], 0, 1),
        ([[0, 0], [5, math.nan], [1, 1]], 2, 1),
        ([[math.nan], [math.nan]], 0, -math.inf),
        ([[math.nan], [-50]], 1, -50),
    ],
)
def test_the_median_over_seeds_decides(offer, scores, trial, best):
    found = choice_of(scores, offer)
    assert (found.trial, found.best, found.best_score) == (trial, trial, best)
    assert found.parameters == {"shift": float(trial)}
    assert found.flops == np.size(scores)


SEARCH = [[0, 0, 0], [1, 1, 1]]  # trial 1 is the best


@pytest.mark.parametrize(
    ("differences", "chosen"),
    [
        ([0.1] * 10, True),
        ([0.1] * 8 + [-0.1] * 2, True),
        ([0.1] * 7 + [-0.01] * 3, False),
        ([0.1] * 7 + [0.0] * 3, False),
        ([0.0] * 10, False),
        ([0.01] * 9 + [5.0], True),
        ([0.1] * 8 + [-1.0] * 2, False),
        ([0.1] * 9 + [-5.0], False),
        ([0.1] * 9 + [-math.inf], False),
        ([0.1] * 8 + [math.inf] * 2, True),
        ([0.1] * 8 + [math.inf, -math.inf], False),
    ],
)
def test_fresh_seeds_decide_between_the_best_trial_and_the_defaults(offer, differences, chosen):
    """By how many it is ahead on, and not where it is far behind on a few. A fit that failed is infinitely behind."""
    found = choice_of(SEARCH, offer, differences)
    assert (found.best, found.trial, found.parameters) == (1, int(chosen), {"shift": float(chosen)})
    assert found.confirmation.ahead == sum(each > 0 for each in differences)
    with np.errstate(invalid="ignore"):
        assert found.confirmation.gain == pytest.approx(np.mean(differences), nan_ok=True)
        assert found.confirmation.stderr == pytest.approx(np.std(differences, ddof=1) / math.sqrt(10), nan_ok=True)
    assert found.reason.startswith(f"{'trial 1 wins' if chosen else 'the defaults are kept'}: trial 1 is ahead of the ")
    assert f"on {found.confirmation.ahead} of 10 fresh seeds (" in found.reason


JOINT = [  # dataset, scores of three trials over three seeds, and on how many fresh seeds trial 2 is ahead
    ("circle", [[0, 0, 0], [3, 3, -9], [1, 1, 1]], [0.5] * 10),
    ("absolute", [[0, 0, 0], [-4, -4, -4], [1, 1, 1]], [-0.1] * 4 + [0.1] * 6),
]


def joint(given, settings):
    """The choices from scores and differences of several datasets."""
    rows = []
    for dataset, scores, differences in given:
        each = rows_of("search", scores, range(3))
        each += rows_of("confirmation", [[0.0] * FRESH_SEEDS, differences], (0, 2))
        rows += [{**row, "dataset": dataset} for row in each]
    return choose(pd.DataFrame(rows), dataclasses.replace(plan_of("point"), settings=settings))


def test_one_choice_for_all_datasets_is_made_by_the_mean_over_them(offer):
    """Trial 1 is best on circle, and bad on absolute. On no dataset alone is trial 2 both best and confirmed."""
    offer("point", Point(shift=0.0))
    (found,) = joint(JOINT, TuneSettings(methods=("point",), jointly=True))
    assert (found.dataset, found.trial, found.best, found.best_score, found.default_score) == ("*", 2, 2, 1.0, 0.0)
    assert (found.confirmation.ahead, found.confirmation.seeds) == (10, 10)  # at each seed .2 or .3 in the mean
    differences = np.mean([each[2] for each in JOINT], axis=0)
    assert found.confirmation.gain == pytest.approx(differences.mean())
    assert found.confirmation.stderr == pytest.approx(differences.std(ddof=1) / math.sqrt(10))
    assert found.flops == 2 * 9


def test_one_choice_for_all_datasets_needs_all_of_them(offer):
    """A fit that fails on one dataset is infinitely behind."""
    offer("point", Point(shift=0.0))
    failed = [JOINT[0], ("absolute", [[0, 0, 0], [-4, -4, -4], [1, 1, 1]], [math.nan] * 3 + [0.1] * 7)]
    (found,) = joint(failed, TuneSettings(methods=("point",), jointly=True))
    assert (found.trial, found.confirmation.ahead) == (0, 7)
    unscored = [JOINT[0], ("absolute", [[0, 0, 0], [-4, -4, -4], [1, math.nan, math.nan]], [0.1] * 10)]
    (found,) = joint(unscored, TuneSettings(methods=("point",), jointly=True))
    assert (found.trial, found.best, found.unscored) == (0, 0, 1)


def test_one_choice_is_made_and_used_on_other_datasets(tune, tmp_path, compare, in_process):
    end = tune(tmp_path / "out", "--jointly", datasets="circle,absolute")
    assert end.code == 0
    assert len(in_process) == 2 * (4 * 3 + 2 * FRESH_SEEDS)
    file = tmp_path / "out" / "tuned.json"
    content = json.loads(file.read_text())
    assert content["datasets"] == {"*": {"point": [{"shift": 0.0}]}}
    assert content["budget"]["jointly"] is True
    assert content["score"].endswith("its mean over datasets")
    assert f"all datasets / point, tuning 1: {content['choices'][0]['reason']}." in end.out.splitlines()
    assert compare(tmp_path / "used", "point", "clusters", 1, "--tuned", file).code == 0
    assert tables.read_table(tmp_path / "used", "runs")["p_shift"].tolist() == [0.0]
    info = json.loads((tmp_path / "used" / "study.json").read_text())["tuned"]
    assert "one choice for all datasets" in info["budget"]
    assert info["methods"]["point"] == {"clusters": [{"shift": 0.0}]}


def test_defaults_that_fail_give_way_to_a_trial_that_does_not(offer):
    offer("point", Point(shift=0.0))
    rows = rows_of("search", [[math.nan] * 3, [-50] * 3], (0, 1))
    rows += rows_of("confirmation", [[math.nan] * 10, [-50] * 10], (0, 1))
    (found,) = choose(pd.DataFrame(rows), plan_of("point"))
    assert (found.trial, found.confirmation.ahead) == (1, 10)
    assert found.reason == "trial 1 wins: trial 1 is ahead of the defaults on 10 of 10 fresh seeds (a fit failed)"


@pytest.mark.parametrize("noise", ["normal", "heavy"])
def test_a_best_trial_of_many_that_are_no_better_is_seldom_chosen(noise):
    """Of 16 trials that are all as good as the defaults, the best is ahead of them in the search, and by much.

    The rule lets it pass with a probability of at most 56 / 1024. To choose by the search alone fails.
    """
    random, passed, ahead, studies = np.random.default_rng(0), 0, 0, 2000
    for _ in range(studies):
        draw_scores = random.standard_normal if noise == "normal" else partial(random.standard_t, 1)
        search, fresh = draw_scores((16, 3)), draw_scores((2, FRESH_SEEDS))
        best = np.median(search, 1).argmax()
        ahead += best > 0 and bool(np.median(search, 1)[best] > np.median(search, 1)[0])
        difference = fresh[1] - fresh[0]
        stderr = difference.std(ddof=1) / math.sqrt(FRESH_SEEDS)
        passed += best > 0 and Confirmation(FRESH_SEEDS, (difference > 0).sum(), difference.mean(), stderr, 1.0).holds
    assert ahead / studies > 0.9
    assert passed / studies < 0.055


def test_the_same_again_runs_nothing_and_a_lost_run_is_run_again(tune, tuned, in_process):
    first = tables.read_table(tuned, "trials")
    tune(tuned, "--quiet")
    assert in_process == []
    sorted((tuned / "runs").iterdir())[0].unlink()
    tune(tuned, "--quiet")
    assert len(in_process) == 1
    kept = ["dataset", "method", "trial", "seed", "score", "p_shift"]
    pd.testing.assert_frame_equal(tables.read_table(tuned, "trials")[kept], first[kept])


def test_a_dataset_is_added_to_what_is_chosen(tune, tuned, in_process):
    tune(tuned, "--quiet", datasets="absolute")
    assert len(in_process) == 4 * 3 + 2 * FRESH_SEEDS
    assert all(name.startswith("absolute / ") for name in in_process)
    assert set(json.loads((tuned / "tuned.json").read_text())["datasets"]) == {"circle", "absolute"}


def test_what_is_set_stays_in_the_choice(tune, tmp_path, offer):
    """Also when another command adds a dataset, and for the defaults."""

    class Pair(Point):
        search: ClassVar[Mapping[str, Range]] = {**Point.search, "idle": Choice((1, 2, 3))}

    offer("point", Pair())
    for name in ("circle", "absolute"):
        given = ("--set", "point.idle=7", "--set", "point.breaks=false")
        assert tune(tmp_path, *given, "--quiet", datasets=name).code == 0
    content = json.loads((tmp_path / "tuned.json").read_text())
    assert {*content["search"]["point"]} == {"shift"}
    assert content["budget"]["set"] == {"point": {"idle": 7, "breaks": False}}
    assert [{**each["point"][0], "shift": 0} for each in content["datasets"].values()] == [
        {"shift": 0, "idle": 7, "breaks": False}
    ] * 2
    assert {*tables.read_table(tmp_path, "trials")["p_idle"]} == {7}


def test_the_same_runs_give_one_choice_for_all_datasets_or_one_for_each(tune, tuned, in_process):
    alone = (tuned / "tuned.json").read_text()
    assert tune(tuned, "--jointly", "--quiet").code == 0
    assert {*json.loads((tuned / "tuned.json").read_text())["datasets"]} == {"*"}
    assert tune(tuned, "--quiet").code == 0
    assert json.loads((tuned / "tuned.json").read_text())["datasets"] == json.loads(alone)["datasets"]
    assert in_process == []


def test_another_budget_does_not_mix(tune, tuned, unchanged, compare):
    with unchanged(tuned):
        assert "holds a study with --trials 5, got 6" in tune(tuned, trials=6).err
        assert "holds a study with --repeats 1, got 3" in tune(tuned, "--repeats", 3).err
        assert "--set point nothing, got idle=1" in tune(tuned, "--set", "point.idle=1").err
        assert "holds results of `tune`, not of `compare`" in compare(tuned, "point").err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-m", "oracle"), "method 'oracle' declares nothing to tune (available: "),
        (("-m", "vae[steps=3]"), "tune takes methods by name, got 'vae[steps=3]'"),
        (("-m", "gtm", *(part for name in ("codes=9", "starts=1", "tolerance=1") for part in ("--set", f"gtm.{name}"))),
         "--set fixes all that could be tuned of 'gtm': codes, starts, tolerance"),
        (("-m", "vae", "--trials", "0"), "--trials must be a whole number of at least 1 and at most 100,000, got 0"),
        (("-m", "vae", "--seeds", "2"), "--seeds must be a whole number of at least 3 and at most 1,000, got 2"),
        (("-m", "vae", "--seeds", "1"), "--seeds must be a whole number of at least 3 and at most 1,000, got 1"),
        (("-m", "vae", "--repeats", "0"), "--repeats must be a whole number of at least 1 and at most 1,000, got 0"),
        (("-m", "vae", "--tuned", "x"), "--tuned"),
        (("-m", "vea",), "unknown method 'vea' - did you mean 'vae'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_tuned_is_refused(cli, in_process, tmp_path, unchanged, args, message):
    with unchanged(tmp_path):
        end = cli("tune", "-d", "circle", "--out", tmp_path / "out", *args)
    assert (end.code, end.err.count("\n")) == (2, 1)
    assert message in end.err
    assert in_process == []

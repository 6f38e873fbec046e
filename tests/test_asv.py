"""The benchmarks run: under asv with the project's own configuration, and each of them in this process."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

# For benchmarks, which is not installed. It is last, so that all else is what is installed.
sys.path.append(str(Path(__file__).parents[1]))

from bench.stats.summary import final
from bench.store.records import Cost, RunResult, RunSpec
from bench.study.file import read_plan
from benchmarks import fits, posterior, quality, study

ROOT = Path(__file__).parents[1]
SMALL = ROOT / "results" / "reference" / "small"
LIGHT = ("time_help",)


@pytest.fixture
def asv(tmp_path):
    """Runs asv in a copy of what it reads, so that what it writes goes there; what it prints."""
    shutil.copy(ROOT / "asv.conf.json", tmp_path)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "asv_machine.py", tmp_path / "tools")
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def run(*arguments):
        command = [sys.executable, "-m", "asv", *arguments]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, **streams)
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def test_benchmarks_run_in_this_environment_on_a_machine_that_asv_does_not_know(asv, tmp_path):
    chosen = [word for pattern in LIGHT for word in ("--bench", pattern)]
    here = f"existing:{sys.executable}"
    output = asv("run", "--quick", "--dry-run", "--show-stderr", "--environment", here, *chosen)
    assert f"Running {len(LIGHT)} total benchmarks" in output
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("kind", "timed", "parameter"),
    [
        (fits.Fit, "time_fit", "untrained"),
        (fits.Steps, "time_25_steps", "vae"),
        (fits.StepsOfABlock, "time_25_steps", "vae"),
        (posterior.Signals, "time_signals", 100),
        (posterior.IndexPosterior, "time_log_index", 100),
        (posterior.Quadrature, "time_quadrature", "figure8"),
    ],
)
def test_what_is_timed_runs(kind, timed, parameter):
    made = kind()
    made.setup(parameter)
    getattr(made, timed)(parameter)


def test_fits_are_shortened_to_the_same_number_of_steps():
    assert fits.shortened("vae") == {"steps": fits.STEPS}
    assert fits.shortened("untrained") == {}


def test_the_smallest_part_of_the_reference_is_tracked(monkeypatch):
    asked = []
    monkeypatch.setattr(quality, "compare", lambda **settings: asked.append(settings))
    monkeypatch.setattr(quality, "read_table", lambda _, name: pd.read_parquet(SMALL / f"{name}.parquet"))
    made = quality.Quality()
    _, runs = made.setup_cache()
    (settings,) = asked
    plan, _ = read_plan(SMALL / "study.toml")
    kept = {name for name in settings if name not in ("methods", "datasets", "out", "report")}
    stated = {name: getattr(plan.settings, name) for name in kept}
    assert stated == {name: tuple(v) if isinstance(v := settings[name], list) else v for name in kept}
    assert kept >= {"seeds", "n_train", "n_test", "max_flops"}
    assert (tuple(settings["datasets"]), settings["methods"]) == (quality.DATASETS, quality.METHODS)
    assert set(runs["dataset"]) == {*quality.DATASETS}


def test_what_is_tracked_is_read_from_the_study():
    study = tuple(pd.read_parquet(SMALL / f"{name}.parquet") for name in ("measurements", "runs"))
    made = quality.Quality()
    ends = final(*study)["oracle_gap"].groupby(["dataset", "method"]).mean()
    for dataset, method in ends.index:
        assert made.track_oracle_gap(study, method, dataset) == pytest.approx(ends[dataset, method])
        assert made.track_peak_memory(study, method, dataset) > 0
    rows = study[0][study[0]["metric"] == "oracle_gap"].set_index(["dataset", "method", "seed"]).sort_index()
    flops = made.track_flops_to_target(study, "vae", "figure8")
    assert flops == max(rows.loc[("figure8", "vae", seed)].query("value <= 5")["flops"].min() for seed in (0, 1))
    assert math.isnan(made.track_flops_to_target(study, "vae", "swiss_roll"))
    assert math.isnan(made.track_oracle_gap(study, "a method without runs", "circle"))


def test_what_is_tracked_of_a_run_is_what_it_takes_beside_its_fit(monkeypatch):
    tiny = RunSpec(dataset="circle", method="untrained", seed=0, n_train=20, n_test=20)
    assert study.beside_fit(tiny) > 0
    ran = []
    monkeypatch.setattr(study, "run_one", lambda spec: ran.append(spec) or RunResult(spec, cost=Cost(cpu_s=-50.0)))
    made = study.Evaluation()
    made.setup("iterative")
    assert made.track_cpu("iterative") == pytest.approx(50, abs=1)
    assert [dict(spec.parameters) for spec in ran] == [{}, {"steps": fits.STEPS}]


def test_what_is_tracked_of_the_default_study(monkeypatch):
    """A run of 5 s in 10 s of two cores."""

    def made_up(_, spec):
        return RunResult(spec, cost=Cost(wall_s=3.0), evaluation_s=2.0) if spec.seed else None

    asked = []
    monkeypatch.setattr(study, "compare", lambda **settings: asked.append(settings))
    monkeypatch.setattr(study, "read_run", made_up)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    made = study.DefaultStudy()
    seconds, runs = made.setup_cache()
    assert asked == [{"methods": ("mapa", "iterative"), "out": study.FOLDER}]
    assert made.track_seconds((seconds, runs)) == seconds >= 0
    assert len(runs) == 5 * 2 * 9
    assert made.track_harness_share((10.0, runs[:1])) == pytest.approx(0.75)

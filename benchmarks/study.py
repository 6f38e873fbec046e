"""What the README's first command takes, and what of it is neither a fit nor its evaluation."""

import os
from pathlib import Path
from time import perf_counter, process_time

from bench import compare
from bench.config.schema import Settings
from bench.fit.runner import run_one
from bench.store.records import RunResult, RunSpec
from bench.store.run_files import read_run
from bench.study.plan import resolve
from benchmarks.fits import N_TRAIN, shortened

FOLDER = Path("default")
STUDY = {"methods": ("mapa", "iterative")}


class Evaluation:
    """CPU seconds of a run on the circle beside its fit, of at most 500 steps: nearly all of it is evaluation."""

    params = STUDY["methods"]
    param_names = ("method",)
    timeout = 300

    def setup(self, name: str) -> None:
        self.spec = RunSpec(
            dataset="circle", method=name, seed=0, n_train=N_TRAIN, parameters=tuple(shortened(name).items())
        )
        beside_fit(RunSpec(dataset="circle", method=name, seed=0, max_flops=1.0))  # imports

    def track_cpu(self, _: str) -> float:
        return beside_fit(self.spec)

    track_cpu.unit = "s"


def beside_fit(spec: RunSpec) -> float:
    """The CPU seconds that a run takes in this process beside its fit."""
    began = process_time()
    result = run_one(spec)
    return process_time() - began - result.cost.cpu_s


class DefaultStudy:
    """Two methods on five curves at ten seeds, as many runs at a time as there are cores, with the report."""

    timeout = 900

    def setup_cache(self) -> tuple[float, list[RunResult]]:
        """The seconds that the study takes, and its runs."""
        began = perf_counter()
        compare(**STUDY, out=FOLDER)
        seconds = perf_counter() - began
        found = (read_run(FOLDER, spec) for spec in resolve(Settings(**STUDY)).runs)
        return seconds, [result for result in found if result is not None]

    setup_cache.timeout = 900

    def track_seconds(self, study: tuple[float, list[RunResult]]) -> float:
        return study[0]

    track_seconds.unit = "s"

    def track_harness_share(self, study: tuple[float, list[RunResult]]) -> float:
        """The share of the cores' time that is neither fit nor evaluation: imports, data, counting, tables, report.

        The seconds of fits that are timed alone are part of it.
        """
        seconds, runs = study
        spent = sum(run.cost.wall_s + run.evaluation_s for run in runs)
        return 1 - spent / (seconds * (os.cpu_count() or 1))

    track_harness_share.unit = "share"

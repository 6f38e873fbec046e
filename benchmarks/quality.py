"""What each method learns in the smallest part of the reference, and at what cost; lower is better throughout."""

import tomllib
from math import nan
from pathlib import Path

import pandas as pd

from bench import compare
from bench.store.tables import read_table
from benchmarks.fits import METHODS

STUDY = Path(__file__).parents[1] / "results" / "reference" / "small" / "study.toml"
DATASETS = ("circle", "figure8", "swiss_roll")  # of STUDY, which need not be there to list the benchmarks
FOLDER = Path("study")
TARGET = 5.0


class Quality:
    """The study results/reference/small: at most 2e8 FLOPs a fit, two seeds; what failed has no value."""

    params = (METHODS, DATASETS)
    param_names = ("method", "dataset")
    timeout = 3600

    def setup_cache(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The study's measurements and runs, once for everything that is tracked."""
        stated = {key: value for key, value in tomllib.loads(STUDY.read_text()).items() if key != "name"}
        measurements = compare(**stated | {"methods": METHODS}, out=FOLDER, report=False)
        return measurements, read_table(FOLDER, "runs")

    setup_cache.timeout = 3600

    def track_oracle_gap(self, study: tuple[pd.DataFrame, pd.DataFrame], name: str, dataset: str) -> float:
        """The mean over seeds at the end of the fits."""
        gaps = of(study[0], name, dataset).query("metric == 'oracle_gap'")
        return float(gaps.sort_values("checkpoint").groupby("seed")["value"].last().mean()) if len(gaps) else nan

    track_oracle_gap.unit = "nats"

    def track_flops_to_target(self, study: tuple[pd.DataFrame, pd.DataFrame], name: str, dataset: str) -> float:
        """Until the gap is at most five nats, to the grid of checkpoints, for the last seed; none if one never is."""
        runs, rows = of(study[1], name, dataset), of(study[0], name, dataset)
        reached = rows.query("metric == 'oracle_gap' and value <= @TARGET").groupby("seed")["flops"].min()
        return float(reached.max()) if len(reached) == len(runs) else nan

    track_flops_to_target.unit = "FLOPs"

    def track_peak_memory(self, study: tuple[pd.DataFrame, pd.DataFrame], name: str, dataset: str) -> float:
        return float(of(study[1], name, dataset)["peak_memory_mb"].max())

    track_peak_memory.unit = "MB"


def of(table: pd.DataFrame, name: str, dataset: str) -> pd.DataFrame:
    """The rows of a method on a dataset."""
    return table[(table["method"] == name) & (table["dataset"] == dataset)]

"""What each method learns in one tiny study that is always the same, and at what cost; lower is better throughout."""

from math import nan
from pathlib import Path

import pandas as pd

from bench import compare
from bench.store.tables import read_table
from benchmarks.fits import METHODS, shortened

FOLDER = Path("study")
TARGET = 2.0


class Quality:
    """Fits of at most 500 steps to 200 training points of the circle at seed 0; what failed has no value."""

    params = METHODS
    param_names = ("method",)
    timeout = 900

    def setup_cache(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The study's measurements and runs, once for everything that is tracked."""
        fewer = {name: shortened(name) for name in METHODS if shortened(name)}
        measurements = compare(
            methods=METHODS, datasets="circle", seeds=1, n_train=200, n_test=500, set=fewer, out=FOLDER, report=False
        )
        return measurements, read_table(FOLDER, "runs")

    setup_cache.timeout = 900

    def track_oracle_gap(self, study: tuple[pd.DataFrame, pd.DataFrame], name: str) -> float:
        gaps = of(study[0], name).query("metric == 'oracle_gap'")
        return float(gaps.sort_values("checkpoint")["value"].iloc[-1]) if len(gaps) else nan

    track_oracle_gap.unit = "nats"

    def track_flops_to_target(self, study: tuple[pd.DataFrame, pd.DataFrame], name: str) -> float:
        """Until the gap is at most two nats, to the grid of checkpoints; no value where it never is."""
        reached = of(study[0], name).query("metric == 'oracle_gap' and value <= @TARGET")
        return float(reached["flops"].min())

    track_flops_to_target.unit = "FLOPs"

    def track_peak_memory(self, study: tuple[pd.DataFrame, pd.DataFrame], name: str) -> float:
        return float(of(study[1], name)["peak_memory_mb"].max())

    track_peak_memory.unit = "MB"


def of(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a method."""
    return table[table["method"] == name]

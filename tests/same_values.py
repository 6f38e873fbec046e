"""Repeats the small reference study and compares every value and every counted cost with the stored tables.

python -m tests.same_values [DIR]

Run it before and after a change that must not alter results. It takes about six minutes, one run at a time. DIR holds
the repeated study; the default is a temporary folder.
"""

import sys
import tempfile
from pathlib import Path

import pandas as pd

from bench.config.schema import Execution
from bench.study.execute import execute
from bench.study.file import read_plan
from bench.study.log import Silent, StudyLog

STORED = Path(__file__).parents[1] / "results" / "reference" / "small"
# By table: what identifies a row, and what depends on the machine or the code, not on the values.
TABLES = {
    "measurements": (["dataset", "method", "seed", "checkpoint", "metric"], ["wall_s", "cpu_s"]),
    "runs": (
        ["dataset", "method", "seed"],
        ["wall_s", "cpu_s", "evaluation_s", "overrun_s", "query_s", "peak_memory_mb", "key"],
    ),
    "work": (["dataset", "method", "seed", "name", "by"], []),
}


def differences(stored: Path, repeated: Path) -> dict[str, tuple[int, int]]:
    """The number of values compared in each table, and the number of those that differ.

    Args:
        stored: A study's folder.
        repeated: The folder of the same study, made again.
    """
    found = {}
    for name, (by, ignored) in TABLES.items():
        one, two = (
            pd.read_parquet(folder / f"{name}.parquet").set_index(by).sort_index() for folder in (stored, repeated)
        )
        columns = [column for column in one if column in two and column not in ignored]
        rows = one.index.intersection(two.index)
        apart = len(one.index.symmetric_difference(two.index)) * len(columns)
        a, b = one.loc[rows, columns], two.loc[rows, columns]
        apart += int((~((a == b) | (a.isna() & b.isna()))).to_numpy().sum())
        found[name] = (max(len(one), len(two)) * len(columns), apart)
    return found


def main(out: Path) -> int:
    """Repeat the study in a folder and print what differs. Returns 1 if anything does."""
    plan, _ = read_plan(STORED / "study.toml")
    with StudyLog(out, "python -m tests.same_values", Silent()) as log:
        execute(plan, out, Execution(jobs=1), log, "python -m tests.same_values")
    found = differences(STORED, out)
    for name, (compared, apart) in found.items():
        sys.stdout.write(f"{name}: {compared} values compared, {apart} differ\n")
    return 1 if any(apart for _, apart in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())))

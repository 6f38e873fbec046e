"""Keeps of a finished study what others stand on: its settings, its runs, and the rows that verdicts and curves need.

python -m tools.pack DIR [OUT]

DIR is the study's folder; OUT is by default results/reference/study, which `compare --against reference` reads and the
package carries. Refuses a study that is not finished, and one whose tables are larger than 5 MB.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.store.files import atomic_write
from bench.store.stored import thinned
from bench.store.study_tables import read
from bench.store.tables import write_table

OUT = Path(__file__).parents[1] / "results" / "reference" / "study"
KEPT = ("study.json", "study.toml", "tuned/*", "measurements.parquet", "runs.parquet", "work.parquet")
LIMIT = 5_000_000


def pack(folder: Path, out: Path) -> int:
    """Write what is kept of a study to another folder; the number of its bytes.

    Raises:
        ValueError: If the study is not finished, or what is kept is too large.
    """
    study = read(folder)
    if study.info["provenance"]["finished"] is None:
        raise ValueError(f"{folder} is not finished")
    tables = {"measurements": thinned(study.measurements), "runs": study.runs, "work": study.work}
    (out / "tuned").mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_table(out / f"{name}.parquet", table)
    for path in (each for kind in KEPT if "parquet" not in kind for each in folder.glob(kind)):
        atomic_write(out / path.relative_to(folder), path.read_bytes())
    size = sum(path.stat().st_size for kind in KEPT for path in out.glob(kind))
    if size > LIMIT:
        raise ValueError(f"{out} takes {size / 1e6:.1f} MB; what travels with the package may take {LIMIT / 1e6:g} MB")
    return size


if __name__ == "__main__":
    given = [Path(each) for each in sys.argv[1:]]
    print(f"{pack(given[0], given[1] if len(given) > 1 else OUT) / 1e6:.2f} MB")

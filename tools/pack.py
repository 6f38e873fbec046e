"""Keeps of a finished study what others stand on: its settings, its runs, and the rows that verdicts and curves need.

python -m tools.pack DIR [OUT]

DIR is the study's folder; OUT is by default results/reference/study, which `compare --against reference` reads and the
package carries. Refuses a study that is not finished, and one whose tables are larger than 5 MB.
"""

from __future__ import annotations

import argparse
import tempfile
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
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as made:
        new = Path(made)
        for name, table in tables.items():
            write_table(new / f"{name}.parquet", table)
        for path in (each for kind in KEPT if "parquet" not in kind for each in folder.glob(kind)):
            _copy(path, new / path.relative_to(folder))
        files = [path for path in new.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        if size > LIMIT:
            raise ValueError(f"{out} would take {size / 1e6:.1f} MB, of {LIMIT / 1e6:g} MB that may travel")
        for path in files:
            _copy(path, out / path.relative_to(new))
    return size


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(to, path.read_bytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a finished study")
    parser.add_argument("out", type=Path, metavar="OUT", nargs="?", default=OUT, help="where to keep it")
    asked = parser.parse_args()
    print(f"{pack(asked.folder, asked.out) / 1e6:.2f} MB")

"""Results on disk: one JSON file per cell, tables made from them, all written atomically and readable without us."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cell import CellResult, CellSpec, Cost, Row
from bench.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
COST_COLUMNS = tuple(Cost.__dataclass_fields__)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place once written in full; nothing is left of a failure."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; NaN and infinities are not JSON and become null."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(_finite(content), indent=1) + "\n", encoding="utf-8")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises UsageError, naming it, if it cannot be read as such."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def cell_path(folder: Path, spec: CellSpec) -> Path:
    """Where a cell's result lies."""
    return folder / "cells" / f"{spec.key}.json"


def write_cell(folder: Path, result: CellResult) -> None:
    """Write a cell's result; its file is complete or absent."""
    write_json(cell_path(folder, result.spec), {"schema": SCHEMA, **asdict(result)})


def read_cell(folder: Path, spec: CellSpec) -> CellResult | None:
    """A cell's result, or None if there is none that is whole."""
    path = cell_path(folder, spec)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema") != SCHEMA:
            return None
        rows = [
            Row(**{**row, "stderr": _number(row["stderr"]), "cost": Cost(**row["cost"])}) for row in content["rows"]
        ]
        densities = [(name, x1, x2, value) for name, x1, x2, value in content["densities"]]
        return CellResult(
            **{**content, "spec": spec, "cost": Cost(**content["cost"]), "rows": rows, "densities": densities}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def write_tables(folder: Path, results: list[CellResult]) -> None:
    """Write measurements, cells and densities, as Parquet and (but for densities) CSV."""
    import pandas as pd

    measurements = pd.DataFrame(
        [_measurement(result, row) for result in results for row in result.rows],
        columns=[
            "dataset",
            "method",
            "seed",
            "checkpoint",
            "metric",
            "value",
            "stderr",
            "unit",
            *COST_COLUMNS,
        ],
    )
    cells = pd.DataFrame([_cell(result) for result in results])
    for name in [name for name in cells if str(name).startswith("p_")]:
        cells[name] = _of_one_type(cells[name])
    densities = pd.DataFrame(
        [(r.spec.dataset, name, r.spec.seed, *point) for r in results for name, *point in r.densities],
        columns=["dataset", "method", "seed", "x1", "x2", "log_density"],
    ).drop_duplicates(["dataset", "method", "seed", "x1", "x2"])
    for name, table in (("measurements", measurements), ("cells", cells), ("densities", densities)):
        _write_table(folder / f"{name}.parquet", table)
    for name, table in (("measurements", measurements), ("cells", cells)):
        _write_table(folder / f"{name}.csv", table)


def _measurement(result: CellResult, row: Row) -> dict[str, Any]:
    spec, fields = result.spec, asdict(row)
    cost = fields.pop("cost")
    return {"dataset": spec.dataset, "method": spec.method, "seed": spec.seed, **fields, **cost}


def _cell(result: CellResult) -> dict[str, Any]:
    spec = result.spec
    return {
        "dataset": spec.dataset,
        "method": spec.method,
        "seed": spec.seed,
        "status": result.status,
        "message": result.message,
        **asdict(result.cost),
        "evaluation_s": result.evaluation_s,
        "concurrent": result.concurrent,
        "key": spec.key,
        **{f"p_{name}": value for name, value in result.parameters.items()},
    }


def _of_one_type(column: pd.Series[Any]) -> pd.Series[Any]:
    """The column itself or, where its values differ in type, which Parquet cannot hold, as text."""
    if len({type(value) for value in column.dropna()}) <= 1:
        return column
    return column.map(str, na_action="ignore")


def _write_table(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """The table `name` of a study."""
    import pandas as pd

    return pd.read_parquet(folder / f"{name}.parquet")

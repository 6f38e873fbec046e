"""Data that Python holds, kept as files in a study's folder, so that each run can read them in a process of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.common.errors import UsageError, describe
from bench.config import labels
from bench.registry.own_data import Table, of_array, of_frame, table
from bench.store.files import replacing
from bench.study.folder import made

NAME = "data"  # of the dataset of a DataFrame or an array
ACCEPTED = "a path, a DataFrame, an array (n, D), a list of these, or a mapping from names to DataFrames and arrays"


def stored(data: Any, columns: str | Iterable[str], out: Path) -> list[str]:
    """The paths of files with the data; what is in no file yet is written into the study's folder.

    Args:
        data: One of what is `ACCEPTED`.
        columns: The columns to take; none for all that hold numbers.
        out: The study's folder.

    Raises:
        UsageError: For data that cannot be used or named, and for a folder that cannot be written to.
    """
    if data is None:
        raise UsageError(f"data must be {ACCEPTED}, got None")
    every = data if isinstance(data, list | tuple) else [data]
    named = list(data.items()) if isinstance(data, Mapping) else [(NAME, each) for each in every]
    taken = (columns,) if isinstance(columns, str) else columns
    if not isinstance(taken, list | tuple) or not all(isinstance(name, str) for name in taken):
        raise UsageError(f"columns must be a list of names, got {columns!r}")
    taken = tuple(taken)
    for name, each in named if isinstance(data, Mapping) else ():
        if isinstance(each, str | Path):
            raise UsageError(f"data {name} is a path, whose file names the dataset already; give paths in a list")
    if not named:
        raise UsageError(f"no data are given: data must be {ACCEPTED}, got {data!r}")
    tables = [(n, each if isinstance(each, str | Path) else _table(n, each, taken)) for n, each in named]
    new = [name for name, each in tables if isinstance(each, Table)]
    if len(set(new)) < len(new):
        raise UsageError("several DataFrames or arrays need names: data={'NAME': ..., 'OTHER': ...}")
    return [_written(n, each, out) if isinstance(each, Table) else str(Path(each).resolve()) for n, each in tables]


def _table(name: Any, value: Any, columns: tuple[str, ...]) -> Table:
    import numpy as np
    import pandas as pd

    if not isinstance(name, str) or not labels.NAME.fullmatch(name):
        raise UsageError(f"data needs names of letters, digits and . _ + -, got {name!r}")
    try:
        cells = of_frame(value) if isinstance(value, pd.DataFrame) else of_array(np.asanyarray(value))
        return table(cells, columns)
    except UsageError as error:
        raise UsageError(f"data {name}: {error}") from None
    except (TypeError, ValueError, RuntimeError) as error:  # of np.asarray
        raise UsageError(f"data {name} must be a path, a DataFrame or an array of numbers: {describe(error)}") from None


def _written(name: str, found: Table, out: Path) -> str:
    """The file of a table, in a folder that its content names, so that no study's data are ever replaced."""
    import pandas as pd

    digest = hashlib.sha256(repr(found.names).encode() + found.values.tobytes()).hexdigest()[:16]
    file = made(out) / "data" / digest / f"{name}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        pd.DataFrame(found.values, columns=list(found.names)).to_parquet(temporary, index=False)
    return str(file.resolve())

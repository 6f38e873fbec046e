"""The tables of a study, made from the results of its runs. Every file is written in one step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config.labels import spell_value
from bench.config.schema import CONDITIONS
from bench.store.files import replacing
from bench.store.records import Cost, Diagnostic, Row, RunResult, Work
from bench.store.schema import RUN, TABLES

if TYPE_CHECKING:
    import pandas as pd


PARQUET_ONLY = ("densities", "posteriors", "signals", "images", "references")


def write_tables(folder: Path, results: list[RunResult]) -> None:
    """Write the tables as Parquet and, except the large ones, as CSV."""
    for name, table in made(results):
        for suffix in ("parquet",) if name in PARQUET_ONLY else ("parquet", "csv"):
            write_table(folder / f"{name}.{suffix}", table)


def made(results: list[RunResult]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each table by name, made when it is asked for, so that one is held at a time."""
    import pandas as pd

    yield "measurements", _measurements(results)
    yield "diagnostics", _long(results, "diagnostics", Diagnostic)
    yield "work", _long(results, "work", Work)
    shown = {
        "densities": ["x1", "x2"],
        "posteriors": ["point", "index"],
        "signals": ["point", "draw"],
        "images": ["kind", "place"],
    }
    for table, same in shown.items():
        yield table, _shown(results, table).drop_duplicates([*RUN, *same])
    yield "references", pd.DataFrame(_references(results), columns=list(TABLES["references"]))
    runs = pd.DataFrame([_run(result) for result in results])
    for name in [name for name in runs if str(name).startswith("p_")]:
        runs[name] = of_one_type(runs[name])
    yield "runs", runs


def _measurements(results: list[RunResult]) -> pd.DataFrame:
    """A row for each measurement, column by column: there may be a million."""
    import pandas as pd

    table = _long(results, "rows", Row)
    costs = table.pop("cost")
    for field in fields(Cost):
        table[field.name] = [getattr(cost, field.name) for cost in costs]
    table["concurrent"] = _repeated([result.concurrent for result in results], [len(r.rows) for r in results])
    return pd.DataFrame(table, columns=list(TABLES["measurements"]))


def _long(results: list[RunResult], name: str, kind: type) -> pd.DataFrame:
    """A row for each entry of a list of every result, with the columns of its run."""
    import pandas as pd

    columns, entries = _entries(results, name)
    columns |= {field.name: [getattr(entry, field.name) for entry in entries] for field in fields(kind)}
    return pd.DataFrame(columns)


def _shown(results: list[RunResult], name: str) -> pd.DataFrame:
    """A row for each entry of a list of every result, a tuple whose first value replaces the method of its run."""
    import pandas as pd

    columns, entries = _entries(results, name)
    columns |= zip(("method", *TABLES[name][len(RUN) :]), zip(*entries, strict=True), strict=bool(entries))
    return pd.DataFrame(columns, columns=list(TABLES[name]))


def _entries(results: list[RunResult], name: str) -> tuple[dict[str, Any], list[Any]]:
    """The entries of a list of every result, and the columns that say of which run each is."""
    lists = [getattr(result, name) for result in results]
    lengths = [len(each) for each in lists]
    columns = {key: _repeated([getattr(result.spec, key) for result in results], lengths) for key in RUN}
    return columns, [entry for each in lists for entry in each]


def _repeated(values: list[Any], times: list[int]) -> Any:
    import numpy as np

    return np.repeat(np.array(values, dtype=object), times)


def _references(results: list[RunResult]) -> list[dict[str, Any]]:
    """The draws of the true posterior, which all runs of a dataset and seed share."""
    shared = {(result.spec.dataset, result.spec.seed): result.references for result in results if result.references}
    names = ("point", "rhat", "ess", "z")
    return [
        {"dataset": dataset, "seed": seed, "draw": draw, **dict(zip(names, row, strict=True))}
        for (dataset, seed), rows in shared.items()
        for draw, row in enumerate(rows)
    ]


def _run(result: RunResult) -> dict[str, Any]:
    names = (
        "stopped_by formula_flops peak_memory_mb overrun_flops overrun_s query_flops query_s evaluation_s concurrent "
        "timed_seed source"
    )
    return {
        **{name: getattr(result.spec, name) for name in RUN},
        "role": result.spec.role,
        "status": result.status,
        "message": result.message,
        "notes": result.notes,
        **{field.name: getattr(result.cost, field.name) for field in fields(Cost)},
        **{name: getattr(result, name) for name in names.split()},
        "key": result.spec.key,
        **{name: _plain(getattr(result.spec, name)) for name in CONDITIONS},
        **{f"p_{name}": value for name, value in result.parameters.items()},
    }


def _plain(value: Any) -> Any:
    """A condition as a table holds it: a list as text."""
    return spell_value(value) if isinstance(value, tuple) else value


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table in one step, as Parquet or CSV by the ending of its name."""
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            floats = list(table.select_dtypes("float"))  # byte stream split halves their size
            others = [name for name in table if name not in floats]
            kept: Any = {"use_dictionary": others, "use_byte_stream_split": floats}
            table.to_parquet(temporary, index=False, compression="zstd", compression_level=12, **kept)


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """The table `name` of a study."""
    import pandas as pd

    return pd.read_parquet(folder / f"{name}.parquet")


def of_one_type(column: pd.Series[Any]) -> pd.Series[Any]:
    """The column itself; as text if its values differ in type, which Parquet cannot hold."""
    if len({type(value) for value in column.dropna()}) <= 1:
        return column
    return column.map(str, na_action="ignore")

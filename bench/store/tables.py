"""Results on disk: one JSON file per run, and tables made from them. Every file is written in one step."""

from __future__ import annotations

import contextlib
import gc
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench.common.errors import InterruptedStudyError
from bench.common.text import plain
from bench.config.labels import spell_value
from bench.config.schema import CONDITIONS
from bench.store.files import read_json as read_json
from bench.store.files import replacing as replacing
from bench.store.files import write_json as write_json
from bench.store.records import KEY as KEY
from bench.store.records import NOT_IN_KEY, STATUSES, Cost, Diagnostic, Row, RunResult, RunSpec, Work, stopped_by
from bench.store.schema import RUN as RUN
from bench.store.schema import SCHEMA as SCHEMA
from bench.store.schema import TABLES as TABLES

if TYPE_CHECKING:
    import pandas as pd


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Within, an error on writing to a study's folder, such as a full disk, ends the study."""
    try:
        yield
    except OSError as error:
        raise InterruptedStudyError(f"{folder} cannot be written to: {error.strerror or error}") from error


def run_path(folder: Path, spec: RunSpec) -> Path:
    """The path of a run's result."""
    return folder / "runs" / f"{spec.key}.json"


WRITTEN = {"schema", "digest", *(field.name for field in fields(RunResult))}


def write_run(folder: Path, result: RunResult) -> None:
    """Write a run's result; its file is complete or absent."""
    write_json(run_path(folder, result.spec), content_of(result))


def content_of(result: RunResult) -> dict[str, Any]:
    """The content of a run's file; what is not a number is None."""
    content = {field.name: getattr(result, field.name) for field in fields(result) if field.name != "spec"}
    spec = msgspec.to_builtins(result.spec)
    sealed = seal({"schema": SCHEMA, "spec": spec, **msgspec.to_builtins(content)})
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(sealed))
    return found


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a run's file with a digest of all else that is in it."""
    rest = {name: value for name, value in content.items() if name != "digest"}
    return rest | {"digest": hashlib.sha256(msgspec.json.encode(rest, order="sorted")).hexdigest()[:32]}


def read_run(folder: Path, spec: RunSpec, key: str | None = None) -> RunResult | None:
    """A run's result; None if there is none, or its file is not believed.

    A file is believed if it has the schema, the run's own key, the digest of its content, and values of the right
    types. Its texts are made plain.

    Args:
        folder: The study's folder.
        spec: The run.
        key: Its key, if it is known already.
    """
    try:
        content = msgspec.json.decode((folder / "runs" / f"{key or spec.key}.json").read_bytes())
        if seal(content) != content:
            return None
        content.setdefault("stopped_by", stopped_by(content["message"]))
        if content.keys() != WRITTEN or content["schema"] != SCHEMA:
            return None
        stored = msgspec.convert(content["spec"], RunSpec)
        if msgspec.structs.replace(stored, **{name: getattr(spec, name) for name in NOT_IN_KEY}) != spec:
            return None
        content |= {
            "spec": spec,
            "message": plain(content["message"]),
            "notes": plain(content["notes"]),
            "peak_memory_mb": _number(content["peak_memory_mb"]),
            "rows": [row | {"stderr": _number(row["stderr"])} for row in content["rows"]],
            "diagnostics": [row | {"value": _number(row["value"])} for row in content["diagnostics"]],
        }
        result = msgspec.convert(content, RunResult)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return result if result.status in STATUSES else None


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Args:
        status: Its status.
        message: Why it did not finish, or which budget ended it.
        seconds: The seconds of its fit and evaluation.
    """

    status: str
    message: str
    seconds: float


def read_ending(folder: Path, spec: RunSpec, key: str | None = None) -> Ending | None:
    """How a run ended; None if its file is absent or not believed. The arguments are those of `read_run`."""
    result = read_run(folder, spec, key)
    return None if result is None else Ending(result.status, result.message, result.cost.wall_s + result.evaluation_s)


def endings(folder: Path) -> dict[str, Ending]:
    """How runs ended as the table of runs tells it, by key, without opening thousands of files.

    Only those are told of whose files are older than the table, since a file that was changed later may say something
    else. A packed study has no files of runs, and all are told of. Digests are not checked, so this is for a look at a
    study, not for a decision on what to run again.
    """
    from pyarrow.parquet import ParquetFile  # a third of the time of pandas

    path, columns = folder / "runs.parquet", ["key", "status", "message", "wall_s", "evaluation_s"]
    try:
        made, packed = path.stat().st_mtime_ns, not (folder / "runs").is_dir()
        files = () if packed else (folder / "runs").iterdir()
        older = {file.stem for file in files if file.stat().st_mtime_ns < made}
        with ParquetFile(path) as file:
            rows = zip(*file.read(columns).to_pydict().values(), strict=True)
            return {
                key: Ending(status, message, wall_s + evaluation_s)
                for key, status, message, wall_s, evaluation_s in rows
                if packed or key in older
            }
    except (OSError, ValueError, TypeError):
        return {}


@contextlib.contextmanager
def many() -> Iterator[None]:
    """Within, many results are read: Python's garbage collection, which would walk them again and again, rests."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def set_aside(folder: Path, spec: RunSpec) -> Path | None:
    """Rename the file of a run that is not believed, so that the run can be made again and nothing is lost.

    Returns:
        Its new path; None if there is no such file.
    """
    path = run_path(folder, spec)
    if not path.is_file():
        return None
    aside = next(each for n in count(1) if not (each := path.with_name(f"{path.stem}.not-believed-{n}.json")).exists())
    path.rename(aside)
    return aside


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


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

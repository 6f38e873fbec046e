"""The file of each run: written whole, sealed with a digest, and read only if it is believed."""

from __future__ import annotations

import contextlib
import gc
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from bench.common.errors import InterruptedStudyError
from bench.common.text import plain
from bench.store.files import write_json
from bench.store.records import NOT_IN_KEY, STATUSES, RunResult, RunSpec, stopped_by
from bench.store.schema import SCHEMA


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

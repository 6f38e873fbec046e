"""The comparison as a Python function."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import msgspec
    import pandas as pd

S = TypeVar("S", bound="msgspec.Struct")


def compare(
    *,
    out: str | Path = "results/compare",
    report: bool = True,
    against: str | Path | None = None,
    problems: int | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Compare methods on datasets and return the tidy table of measurements.

    Does what `python -m bench compare` does: results go to the folder `out`, and what is there already is not run
    again. Every flag of the command is an argument of the same name: n_train=500 is --n-train 500. `data` can also be
    a DataFrame or an array (n, D), several in a list, or a mapping from names to them.

    Args:
        out: The study's folder.
        report: Whether to write the report.
        against: A study's folder, or 'reference': only `methods` are run, and the runs of its own are borrowed.
        problems: How many datasets of that study to take; None for all.
        **settings: The settings and how to execute runs; help(bench.compare) lists them all.

    Raises:
        bench.common.errors.UsageError: For names, values, files or folders that do not fit.
    """
    from bench.common.errors import UsageError
    from bench.config.fields import fields
    from bench.config.schema import Execution, Settings
    from bench.store.tables import read_table
    from bench.study.against import lend, planned
    from bench.study.execute import execute
    from bench.study.log import Silent, StudyLog
    from bench.study.plan import resolve

    if not isinstance(out, str | Path):
        raise UsageError(f"out must be the path of a folder, got {out!r}")
    if problems is not None and against is None:
        raise UsageError("problems needs against, a stored study whose datasets are taken")
    if "data" in settings:
        from bench.study.own_data import stored

        settings["data"] = stored(settings["data"], settings.get("columns", ()), Path(out))
    of_execution = {field.name for field in fields(Execution)}
    own = {name: value for name, value in settings.items() if name not in of_execution}
    how = as_settings(Execution, {name: value for name, value in settings.items() if name in of_execution})
    asked = as_settings(Settings, own)
    loan = None if against is None else planned(asked, list(own), str(against), problems)
    plan = resolve(asked) if loan is None else loan.plan
    call = f"bench.compare({', '.join(f'{name}={value!r}' for name, value in settings.items())})"
    if loan is not None:
        lend(loan, Path(out), call)
    with StudyLog(Path(out), call, Silent()) as log:
        execute(plan, Path(out), how, log, call)
    if report:
        from bench.report.page import write

        write(Path(out))
    return read_table(Path(out), "measurements")


def as_settings(kind: type[S], given: Mapping[str, Any]) -> S:
    """Keyword arguments as settings.

    Raises:
        bench.common.errors.UsageError: For names and values that do not fit.
    """
    from bench.config.fields import read

    return read(kind, {name: _listed(name, value) for name, value in given.items()}, lambda field: field.name)


def _listed(name: str, value: Any) -> Any:
    """A value as the settings take it: one name for a list of names, a path as text."""
    if name in ("methods", "datasets", "baseline", "plugins", "columns") and isinstance(value, str | Path | Iterable):
        every = [value] if isinstance(value, str | Path) else list(value)
        return [_path(each) if name == "plugins" else each for each in every]
    return str(value) if isinstance(value, Path) else _plain(value)


def _plain(value: Any) -> Any:
    """Numbers of numpy, and arrays of them, as Python's, within mappings too; anything else as it is."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return value.tolist() if type(value).__module__ == "numpy" and hasattr(value, "tolist") else value


def _path(value: Any) -> Any:
    """A path, resolved as text; anything else as it is."""
    return str(Path(value).resolve()) if isinstance(value, str | Path) else value


def _signature() -> inspect.Signature:
    """The arguments of `compare`, from the settings."""
    from bench.config.fields import fields
    from bench.config.schema import Execution, Settings

    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [each for each in inspect.signature(compare).parameters.values() if each.kind is keyword]
    every = (*fields(Settings), *fields(Execution))
    derived = [inspect.Parameter(each.name, keyword, default=each.default) for each in every]
    return inspect.Signature([*derived, *own])


def _documented() -> str:
    from bench.config.fields import fields
    from bench.config.schema import Execution, Settings

    lines = [f"        {each.name}: {each.help}" for each in (*fields(Settings), *fields(Execution))]
    before, _, after = (compare.__doc__ or "").partition("        **settings:")
    return before + "\n".join(lines) + "\n" + after.partition("\n")[2]


compare.__doc__ = _documented()
compare.__signature__ = _signature()  # type: ignore[attr-defined]

"""Data of the user's own: a table of numbers in a file, whose rows are split into three sets by the seed."""

from __future__ import annotations

import csv
import io
import re
import reprlib
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.common.errors import UsageError, describe, unknown
from bench.common.units import plural
from bench.config import labels
from bench.config.schema import Conditions
from bench.registry.plugins import RESERVED, Entry

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from datasets.base import Observations

INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls an index without a name
UNNAMED = ""  # the first column of a CSV file with an index
MISSING = ("", "na", "n/a", "nan", "null", "none")
TRAIN = 0.6  # of the rows; the others are shared by validation and test
LEAST_ROWS = 50
WRITTEN_OTHERWISE = re.compile(r"[-+]?\d*([,.]\d+)?\s?%|[-+]?\d+(,\d+)+(\.\d+)?(e[-+]?\d+)?", re.IGNORECASE)  # numbers
SHOWN_NAMES = 8
LARGEST, SMALLEST = 1e15, 1e-15  # so that sums of squares hold in single precision, in which methods get the data

Cells = Mapping[str, Any]  # by column: numbers as an array, or anything as a list


@dataclass(frozen=True)
class Table:
    """Numbers in columns.

    Args:
        names: The names of the columns.
        values: The rows, (n, D), float64.
        left_out: The names of columns without numbers, which were not asked for.
    """

    names: tuple[str, ...]
    values: np.ndarray
    left_out: tuple[str, ...]

    @property
    def remarks(self) -> list[str]:
        """What may not be meant, in words."""
        import pandas as pd

        found = []
        if self.left_out:
            found.append(f"without numbers: {_few(self.left_out)}")
        if _count(self.names, 1):
            found.append("columns without names")
        elif _count(self.names):
            found.append("columns whose names count from 0")
        if (self.values == self.values.round()).all() and (self.values >= 0).all():
            kind, family = (
                ("0 or 1", "bernoulli") if self.values.max() <= 1 else ("a whole number from 0 on", "poisson")
            )
            found.append(f"every value is {kind}, as --likelihood {family} takes it")
        if repeated := int(pd.DataFrame(self.values).duplicated().sum()):
            found.append(f"{plural(repeated, 'row')} equal to an earlier one, which may be in another set")
        return found


def is_data(file: str) -> bool:
    """Whether a file holds data, by the ending of its name."""
    return Path(file).suffix.lower() in READERS


def checked(file: str) -> str:
    """The path of a file whose name ends as one of data; raises UsageError for any other."""
    if not is_data(file):
        raise UsageError(f"data {file} must end in {', '.join(READERS)}")
    return file


def label_of(file: str) -> str:
    """The name of a file's dataset: that of the file, without its ending."""
    return re.sub(r"[^\w.+-]+", "-", Path(file).stem)


def entry(file: str, columns: Iterable[str] = ()) -> Entry:
    """The dataset of a file, which is read.

    Args:
        file: Its path.
        columns: The names of the columns to take; none for all that hold numbers.

    Raises:
        UsageError: Says in one line what is wrong with the file, with row and column.
    """
    found, name, short = read(file, tuple(columns)), label_of(file), Path(file).name
    if not labels.NAME.fullmatch(name) or name in RESERVED:
        raise UsageError(f"data {file} would be the dataset {name!r}, which stands for a group; rename the file")
    rows = len(found.values)
    summary = f"{plural(rows, 'row')} of {short}: {_few(found.names)}"
    summary += f" ({'; '.join(remarks)})" if (remarks := found.remarks) else ""
    return Entry(
        name,
        summary,
        "own data",
        f"data {short}",
        partial(_load, found.values),
        module="datasets.own",
        data_file=file,
        data_dim=len(found.names),
        conditions=_split(rows) | {"observation_noise": "learned"},
    )


def _few(names: tuple[str, ...]) -> str:
    """Names, or their number and the first and the last of them."""
    if len(names) <= SHOWN_NAMES:
        return ", ".join(names)
    return f"{len(names)} columns, {', '.join(names[: SHOWN_NAMES - 2])}, ..., {names[-1]}"


def _split(rows: int) -> dict[str, int]:
    n_train = int(TRAIN * rows)
    left = rows - n_train  # whose other half is for validation
    return {"n_train": n_train, "n_test": min(left - left // 2, Conditions().n_test)}


def _load(values: np.ndarray) -> Callable[..., Observations]:
    from datasets.own import own

    return partial(own, values=values)


def read(file: str, columns: tuple[str, ...] = ()) -> Table:
    """The table in a CSV, Parquet or .npz file. Nothing that is pickled is ever loaded.

    Args:
        file: Its path.
        columns: The names of the columns to take; none for all that hold numbers.

    Raises:
        UsageError: Says in one line what is wrong with the file, with row and column.
    """
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"data {file} is not a file")
    try:
        return table(READERS[path.suffix.lower()](path.read_bytes()), columns)
    except UsageError as error:
        raise UsageError(f"data {file}: {error}") from None
    except Exception as error:
        raise UsageError(f"data {file} cannot be read: {describe(error)}") from None


def _csv(content: bytes) -> Cells:
    """The columns of comma-separated text.

    The first row is a header if none of its cells is a number or missing; the first may be, which is then that of an
    index. It is one too if it counts the columns from 0, as pandas does where they have no names, and some other cell
    is no whole number.
    """
    text = io.StringIO(content.decode("utf-8-sig"), newline="")
    read = csv.reader(text, strict=True)
    rows = [row for row in read if len(row) > 1 or row == [""] or any(cell.strip() for cell in row)]  # "" is missing
    if not rows:
        return {}
    if len(rows[0]) == 1 and (found := [mark for mark in ";\t" if mark in rows[0][0]]):
        raise UsageError(f"its cells are separated by {found[0]!r}; commas are expected")
    first, *others = (cell.strip() for cell in rows[0])
    known = [_number(cell) == _number(cell) or _missing(cell) for cell in rows[0]]
    has_index = not first and bool(others) and (not any(known[1:]) or _count(others))
    width, header = len(rows[0]), has_index or not any(known)
    if width > 1 and _count([first, *others]):
        header = any(not _number(cell).is_integer() for row in rows[1:] for cell in row)
    names = [cell.strip() if header and cell.strip() else str(n) for n, cell in enumerate(rows[0], 1)]
    names[0] = UNNAMED if has_index else names[0]
    body = rows[1:] if header else rows
    for number, row in enumerate(body, 1):
        if len(row) != width:
            raise UsageError(f"row {number} has {plural(len(row), 'cell')}, but the first line has {width}")
    return _named(names, [[row[n] for row in body] for n in range(width)])


def _count(cells: Sequence[str], first: int = 0) -> bool:
    """Whether cells are 0, 1, 2, ..., or the like from another first number on."""
    return bool(cells) and all(cell == str(n) for n, cell in enumerate(cells, first))


def _parquet(content: bytes) -> Cells:
    from pyarrow import parquet

    frame = parquet.read_table(io.BytesIO(content)).to_pandas(ignore_metadata=True)  # else some may be the index
    return of_frame(frame[[name for name in frame if not INDEX.fullmatch(str(name))]])


def _npz(content: bytes) -> Cells:
    import numpy as np

    archive = io.BytesIO(content)
    if not zipfile.is_zipfile(archive):
        what = "a single array" if content.startswith(b"\x93NUMPY") else "something else"
        raise UsageError(f"it is {what}, not an .npz archive, as numpy.savez writes it")
    archive.seek(0)
    found = np.load(archive, allow_pickle=False)
    if len(found.files) != 1:
        raise UsageError(f"it must hold one array, got {', '.join(found.files) or 'none'}")
    return of_array(found[found.files[0]])


READERS: dict[str, Callable[[bytes], Cells]] = {".csv": _csv, ".parquet": _parquet, ".npz": _npz}


def of_frame(frame: pd.DataFrame) -> Cells:
    """The columns of a DataFrame."""
    import numpy as np

    def cells(column: pd.Series[Any]) -> Any:
        if column.dtype.kind in "iuf":
            return column.to_numpy(np.float64, na_value=np.nan)
        return column.astype(object).where(column.notna(), None).tolist()

    return _named(list(map(str, frame.columns)), [cells(frame.iloc[:, n]) for n in range(frame.shape[1])])


def of_array(array: Any) -> Cells:
    """The columns of an array (n, D) or (n,), which are called 1, 2, ..., D. What a mask hides is missing."""
    import numpy as np

    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf" or array.ndim not in (1, 2):
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise UsageError(f"it must be an array of real numbers, (n, D), got {got}")
    numbers = np.asarray(np.ma.filled(array.astype(np.float64), np.nan))
    columns = numbers.reshape(len(array), -1 if array.size else 0).T
    return _named([str(n) for n in range(1, len(columns) + 1)], list(columns))


def _named(names: list[str], columns: list[Any]) -> Cells:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two columns are called {name!r}")
    return dict(zip(names, columns, strict=True))


def table(cells: Cells, columns: tuple[str, ...] = ()) -> Table:
    """A table of finite numbers.

    Args:
        cells: The columns, by name.
        columns: The names of those to take; none for all that hold a number.

    Raises:
        UsageError: For an unknown column, too few rows, a cell that is no finite number, and a constant column.
    """
    import numpy as np

    if UNNAMED in cells and not columns:
        raise UsageError(
            "its first column has no name, as an index that pandas or R writes; write the file without it "
            "(index=False, row.names=FALSE), or name the columns to take with --columns"
        )
    for name in columns:
        if name not in cells:
            raise unknown("column", name, cells)
        if columns.count(name) > 1:
            raise UsageError(f"column {name!r} is asked for twice")
    values = {name: _numbers(each) for name, each in cells.items() if name in columns or not columns}
    names = tuple(columns) or tuple(name for name, each in values.items() if not np.isnan(each).all())
    rows = max(map(len, cells.values()), default=0)
    if rows < LEAST_ROWS:
        raise UsageError(f"it has {plural(rows, 'row') if rows else 'no rows'}; at least {LEAST_ROWS} are needed")
    for name in cells if not columns else ():
        _check_writing(name, cells[name])
    if not names:
        raise UsageError(f"no column holds numbers, or all are missing (columns: {', '.join(cells)})")
    for name in names:
        _check(name, cells[name], values[name])
    left_out = () if columns else tuple(name for name in cells if name not in names)
    return Table(names, np.column_stack([values[name] for name in names]), left_out)


def _numbers(cells: Any) -> np.ndarray:
    """The numbers of a column, (n,), float64: NaN for what is missing and for what is no number."""
    import numpy as np

    return cells if isinstance(cells, np.ndarray) else np.array([_number(cell) for cell in cells], dtype=np.float64)


def _number(cell: Any) -> float:
    if isinstance(cell, Real | Decimal) and not isinstance(cell, bool):
        return float(cell)
    try:
        return labels.number(cell.strip(), float) if isinstance(cell, str) else float("nan")
    except ValueError:
        return float("nan")


def _missing(cell: Any) -> bool:
    return isinstance(cell, str) and cell.strip().lower() in MISSING


def _check(name: str, cells: Any, values: np.ndarray) -> None:
    """Raise UsageError for the first cell of a column that is no finite number, and if all its numbers are equal."""
    import numpy as np

    for row in np.flatnonzero(~(np.abs(values) <= LARGEST))[:1]:
        cell, value = cells[row], values[row]
        empty = cell is None or cell != cell or _missing(cell)
        wrong = "is not a number" if np.isnan(value) else "is infinite" if np.isinf(value) else f"exceeds {LARGEST:g}"
        told = "the value is missing" if empty else f"{_shown(cell)} {wrong}"
        raise UsageError(f"row {row + 1}, column {name!r}: {told}")
    if 0 < (span := float(np.ptp(values))) < SMALLEST:
        raise UsageError(f"column {name!r} spans {span:.2g}, below {SMALLEST:g}: take a smaller unit")
    single = values.astype(np.float32)
    if (single == single[0]).all():
        raise UsageError(f"column {name!r} is constant: {single[0]:g} in single precision in every row")


def _check_writing(name: str, cells: Any) -> None:
    """Raise UsageError for a column whose cells are all numbers in other writing, or missing."""
    texts = [(row, cell.strip()) for row, cell in enumerate(cells, 1) if isinstance(cell, str) and not _missing(cell)]
    if texts and all(WRITTEN_OTHERWISE.fullmatch(text) for _, text in texts):
        row, text = texts[0]
        raise UsageError(
            f"row {row}, column {name!r}: {text!r} is not a number; write decimals with a point and no %, or name "
            "other columns with --columns"
        )


def _shown(cell: Any) -> str:
    return f"{float(cell):g}" if isinstance(cell, Real) and not isinstance(cell, bool) else reprlib.repr(cell)

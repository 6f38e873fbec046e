"""Files written in one step, so that a reader never sees half of one, and JSON."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.common.errors import UsageError

PARTS = ("runs", "locks", "figures", "tables", "tuned", "data")  # the folders within a study


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place if the block ends without an error.

    Args:
        path: The file to write or to replace. Its folder must exist.

    Yields:
        The path of an empty temporary file to write to. It is removed if the block fails.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def refuse_links(folder: Path) -> None:
    """Refuse symbolic links inside a study, through which files outside it would be written.

    Args:
        folder: The study's folder, which may itself lie behind a link.

    Raises:
        UsageError: Names the link.
    """
    for path in (folder, *(folder / name for name in PARTS)):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise UsageError(f"{entry.path} is a symbolic link; a study must hold its files itself")


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a whole file in one step.

    Args:
        path: The file to write or to replace. Its folder must exist.
        content: Bytes, or text that is written as UTF-8.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one step. NaN and infinities are not JSON and become null."""
    atomic_write(path, json.dumps(_finite(content), indent=1) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UsageError: If the file cannot be read or is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None

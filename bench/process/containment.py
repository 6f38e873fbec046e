"""Keeps methods and datasets from changing any result but their own.

Their code may print, draw from global generators, change settings of torch or of the process, take long to import, or
leave threads running. The first three are undone whenever control returns to the harness; the others are reported.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from bench.process.global_state import ENVIRONMENT, FILTERS, GlobalState, seed_generators

SLOW_IMPORT_S = 2.0
GRACE_S = 0.2
KEPT_BYTES = 2000
SHOWN = 200
SET_BY_LIBRARIES = (FILTERS.change, ENVIRONMENT.change)  # libraries change these at their first import


class _Tail(io.RawIOBase):
    """Replaces standard output or error, and keeps the end of what is written to it."""

    def __init__(self, number: int):
        self.number, self.kept = number, b""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.number

    def write(self, content: Any) -> int:
        self.kept = (self.kept + bytes(content))[-KEPT_BYTES:]
        return len(content)


class CapturedStream(io.TextIOWrapper):
    """Replaces a standard stream while other code runs. It is never closed, since that code may keep a reference to it.

    Args:
        number: The file descriptor that it replaces.
    """

    def __init__(self, number: int):
        self.tail = _Tail(number)
        super().__init__(io.BufferedWriter(cast(Any, self.tail)), errors="backslashreplace", line_buffering=True)

    def last_line(self) -> str:
        """The last line that is not blank, shortened to 200 characters; empty if there is none."""
        self.flush()
        lines = self.tail.kept.decode(errors="replace").split("\n")
        return next((" ".join(line.split())[:SHOWN] for line in reversed(lines) if line.strip()), "")


@contextlib.contextmanager
def silenced() -> Iterator[CapturedStream]:
    """Discards all output to standard output and error, by Python or by libraries below it.

    Yields:
        The stream that replaces standard error.
    """
    output, errors = CapturedStream(1), CapturedStream(2)
    with _discarded(1), _discarded(2), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        yield errors


@contextlib.contextmanager
def _discarded(number: int) -> Iterator[None]:
    """Redirects a file descriptor to the null device, if it is open."""
    _flush()
    try:
        kept = os.dup(number)
    except OSError:
        yield
        return
    try:
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), number)
        yield
    finally:
        _flush()
        os.dup2(kept, number)
        os.close(kept)


def _flush() -> None:
    """Write out what Python and the C library have buffered, before the descriptor is redirected."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)


@contextlib.contextmanager
def contained(seed: int | None = None) -> Iterator[list[str]]:
    """Discards all output, and restores all global state at the end.

    Args:
        seed: The seed of the global generators within; None leaves them as they are.

    Yields:
        A list that holds, after the end, a description of each change of global state.
    """
    within = before = GlobalState.capture()
    changed: list[str] = []
    try:
        if seed is not None:
            seed_generators(seed)
            within = GlobalState.capture()
        with silenced():
            yield changed
    finally:
        after = GlobalState.capture()
        changed += after.changes(within)
        if after.changes(before):
            before.restore()


@contextlib.contextmanager
def importing(what: str) -> Iterator[None]:
    """Contains an import, and reports on standard error if it took long or changed settings.

    Args:
        what: What is imported, as messages name it.
    """
    import torch  # noqa: F401 - first, so that its import time and settings are not attributed to what imports it

    start = time.perf_counter()
    with contained(seed=0) as changed:
        yield
    seconds = time.perf_counter() - start
    if seconds > SLOW_IMPORT_S:
        _report(f"{what} took {seconds:.1f} s to import")
    named = [change for change in changed if change not in SET_BY_LIBRARIES]
    if named:
        _report(f"{what} was contained when it was imported: it {', '.join(named)}")


def _report(line: str) -> None:
    import click

    click.echo(line, err=True)


class Containment:
    """Keeps the global state of a run's method apart from that of the harness.

    The method starts with the harness's state. Its changes hold while it runs, and are set aside while the harness
    runs.

    Attributes:
        home: The global state of the harness.
    """

    def __init__(self) -> None:
        self.home = self._own = GlobalState.capture()
        self._before: set[Any] = {*_threads(), *children()}
        self._changed: dict[str, None] = {}

    @contextlib.contextmanager
    def method(self) -> Iterator[None]:
        """Sets the method's own global state within, and the harness's afterwards."""
        self._own.restore()
        try:
            yield
        finally:
            left = GlobalState.capture()
            self._changed |= dict.fromkeys(left.changes(self._own))
            self._own = left
            if left.changes(self.home):
                self.home.restore()

    def begin_anew(self) -> None:
        """Forget what the method has changed so far."""
        self._own, self._changed = self.home, {}

    def undone(self) -> str:
        """What the method changed and the harness undid, in words; empty if nothing."""
        return f"undone: it {', '.join(self._changed)}" if self._changed else ""

    def left_behind(self) -> str:
        """The threads and child processes that the method left running, which cannot be ended; empty if none."""
        found = (("threads", _threads), ("child processes", children))
        left = [f"{kind} ({', '.join(names)})" for kind, find in found if (names := self._left(find))]
        return f"it left running: {', '.join(left)}" if left else ""

    def _left(self, find: Callable[[], Mapping[Any, str]]) -> list[str]:
        """The names of new threads or processes that do not end by themselves within 0.2 seconds."""
        deadline = time.monotonic() + GRACE_S
        while True:
            left = list(dict.fromkeys(name for each, name in find().items() if each not in self._before))
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(GRACE_S / 20)


def _threads() -> dict[object, str]:
    """The live Python threads, with their names."""
    return {each: f"{each.name}{' (daemon)' if each.daemon else ''}" for each in threading.enumerate()}


def children() -> dict[int, str]:
    """The live child processes by number, with their names; Linux only (proc(5))."""
    found: dict[int, str] = {}
    for tasks in Path("/proc/self/task").glob("*/children"):
        for number in _read(tasks).split():
            name, _, rest = _read(Path("/proc") / number / "stat").partition("(")[2].rpartition(")")
            if rest.split()[:1] not in ([], ["Z"]):
                found[int(number)] = name
    return found


def _read(path: Path) -> str:
    """The content of a file of /proc; empty if it is gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""

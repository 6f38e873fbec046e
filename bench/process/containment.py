"""What keeps methods and datasets of others from changing anything but their own results.

They may print, draw from global generators, change settings of torch or of the process, take long to import, or leave
threads behind. The first three are undone whenever they hand over to the harness; the rest is named.
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

from bench.process.global_state import ENVIRONMENT, FILTERS, Surroundings, seed_generators

SLOW_IMPORT_S = 2.0
GRACE_S = 0.2
KEPT_BYTES = 2000
SHOWN = 200
SET_BY_LIBRARIES = (FILTERS.change, ENVIRONMENT.change)  # at their first import, whoever imports them


class _Tail(io.RawIOBase):
    """Stands for standard output or error, and keeps the last of what is written to it."""

    def __init__(self, number: int):
        self.number, self.kept = number, b""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.number

    def write(self, content: Any) -> int:
        self.kept = (self.kept + bytes(content))[-KEPT_BYTES:]
        return len(content)


class Said(io.TextIOWrapper):
    """What stands for a standard stream while code of others runs. Never closed: that code may hold on to it."""

    def __init__(self, number: int):
        self.tail = _Tail(number)
        super().__init__(io.BufferedWriter(cast(Any, self.tail)), errors="backslashreplace", line_buffering=True)

    def last_line(self) -> str:
        """The last line that is not blank, shortened; empty where there is none."""
        self.flush()
        lines = self.tail.kept.decode(errors="replace").split("\n")
        return next((" ".join(line.split())[:SHOWN] for line in reversed(lines) if line.strip()), "")


@contextlib.contextmanager
def silenced() -> Iterator[Said]:
    """Within, nothing is written to standard output or error, by Python or beneath it; yields what stands for error."""
    said = Said(2)
    with _to_nowhere(1), _to_nowhere(2), contextlib.redirect_stdout(Said(1)), contextlib.redirect_stderr(said):
        yield said


@contextlib.contextmanager
def _to_nowhere(number: int) -> Iterator[None]:
    """A file descriptor leads nowhere, if it is open at all."""
    _flush()
    try:
        kept = os.dup(number)
    except OSError:
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), number)
        yield
    finally:
        _flush()
        os.dup2(kept, number)
        os.close(kept)


def _flush() -> None:
    """Write out what Python and the C library hold back, so that it goes where it was meant to go."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)


@contextlib.contextmanager
def contained(seed: int | None = None) -> Iterator[list[str]]:
    """Within, nothing is said, and afterwards all global state is as it was; the list then names what was changed.

    seed: what the global generators are seeded with, if with anything.
    """
    before, changed = Surroundings.capture(), list[str]()
    try:
        if seed is not None:
            seed_generators(seed)
        within = Surroundings.capture()
        with silenced():
            yield changed
    finally:
        changed += Surroundings.capture().changes(within)
        before.restore()


@contextlib.contextmanager
def importing(what: str) -> Iterator[None]:
    """Contain an import, and name on standard error one that took long or changed settings."""
    import torch  # noqa: F401 - before, so that neither its seconds nor its settings are put down to what imports it

    start = time.perf_counter()
    with contained(seed=0) as changed:
        yield
    seconds = time.perf_counter() - start
    if seconds > SLOW_IMPORT_S:
        _tell(f"{what} took {seconds:.1f} s to import")
    named = [change for change in changed if change not in SET_BY_LIBRARIES]
    if named:
        _tell(f"{what} was contained when it was imported: it {', '.join(named)}")


def _tell(line: str) -> None:
    import click

    click.echo(line, err=True)


class Containment:
    """Keeps the surroundings of a run's method apart from the harness's.

    The method begins in those at hand; what it changes holds while it runs, and is set aside while the harness does.
    """

    def __init__(self) -> None:
        self.home = self._own = Surroundings.capture()
        self._before = {**_threads(), **_children()}
        self._changed: dict[str, None] = {}

    @contextlib.contextmanager
    def method(self) -> Iterator[None]:
        """Within, the method's own surroundings; afterwards, the harness's."""
        self._own.restore()
        try:
            yield
        finally:
            left = Surroundings.capture()
            self._changed |= dict.fromkeys(left.changes(self._own))
            self._own = left
            self.home.restore()

    def begin_anew(self) -> None:
        """Forget what the method changed so far."""
        self._own, self._changed = self.home, {}

    def undone(self) -> str:
        """What the method changed and the harness undid; empty if nothing."""
        return f"undone: it {', '.join(self._changed)}" if self._changed else ""

    def left_behind(self) -> str:
        """The threads and child processes that the method left running, which cannot be ended; empty if none."""
        found = (("threads", _threads), ("child processes", _children))
        left = [f"{kind} ({', '.join(names)})" for kind, find in found if (names := self._left(find))]
        return f"it left running: {', '.join(left)}" if left else ""

    def _left(self, find: Callable[[], Mapping[object, str]]) -> list[str]:
        """The names of those that were not there before, and do not end by themselves within a moment."""
        deadline = time.monotonic() + GRACE_S
        while True:
            left = list(dict.fromkeys(name for each, name in find().items() if each not in self._before))
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(GRACE_S / 20)


def _threads() -> dict[object, str]:
    """The threads of Python that are alive, by name."""
    return {each: f"{each.name}{' (daemon)' if each.daemon else ''}" for each in threading.enumerate()}


def _children() -> dict[object, str]:
    """The processes that this one has started and that have not ended, by number; only Linux tells (proc(5))."""
    found: dict[object, str] = {}
    for tasks in Path("/proc/self/task").glob("*/children"):
        for number in _read(tasks).split():
            name, _, rest = _read(Path("/proc") / number / "stat").partition("(")[2].rpartition(")")
            if rest.split()[:1] not in ([], ["Z"]):
                found[number] = name
    return found


def _read(path: Path) -> str:
    """A file of /proc, or nothing where it is gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""

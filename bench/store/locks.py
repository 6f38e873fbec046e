"""Locks on runs and folders: a run is made by one process at a time, whoever else works in the same folder.

A lock is a file on which its holder keeps an advisory lock, flock(2). The system releases it when the holder ends,
however it ends, so that no lock outlives its process, and no clock, process number or heartbeat is trusted. Linux keeps
such locks over NFS too. On a file system without locks two studies could make a run twice, which costs time but no
result, since files of runs are written whole.

The library filelock is not used: it empties the file that it locks, and can look at a lock only by taking it, while
`status` must write nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from bench.common.errors import UsageError
from bench.store import provenance
from bench.store.records import KEY

FOLDER = "locks"
WAIT_S = 0.05
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class RunLocks:
    """The runs of a study that this process has locked, by their keys; all are released on leaving the context."""

    def __init__(self, folder: Path):
        self.folder = folder / FOLDER
        self._held: dict[str, int] = {}

    def take(self, key: str) -> bool:
        """Lock a run.

        Args:
            key: The run's key.

        Returns:
            Whether no other process holds it.

        Raises:
            OSError: If the folder cannot be written to.
            UsageError: If the lock's file is another one, which is left as it is.
        """
        self.folder.mkdir(exist_ok=True)
        if not _is_ours(self._path(key)):
            raise UsageError(f"{self._path(key)} is not a lock of this study; use another --out")
        handle = _lock(self._path(key))
        if handle is None:
            return False
        self._held[key] = handle
        holder = {"host": platform.node(), "process": os.getpid(), "since": provenance.now()}
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(holder).encode())
        return True

    def release(self, key: str) -> None:
        """Release a run."""
        _unlock(self._path(key), self._held.pop(key))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def __enter__(self) -> RunLocks:
        """Nothing is locked yet."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        """Release all runs, and remove what processes that died have left."""
        for key in list(self._held):
            self.release(key)
        for path in self.folder.glob("*.json"):
            if _is_ours(path) and (handle := _lock(path)) is not None:
                _unlock(path, handle)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def held(folder: Path) -> set[str]:
    """The keys of the runs of a study that are running, in any process; locks of dead processes do not count."""
    return {path.stem for path in (folder / FOLDER).glob("*.json") if _is_ours(path) and _is_locked(path)}


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within, no other process is within this block for the same folder."""
    path = folder / ".lock"
    while (handle := _lock(path)) is None:
        time.sleep(WAIT_S)
    try:
        yield
    finally:
        _unlock(path, handle)


def _is_ours(path: Path) -> bool:
    """Whether a file is a lock, by its name and content, or is not there."""
    if KEY.fullmatch(path.stem) is None or path.is_symlink():
        return False
    try:
        content = path.read_bytes()
        return not content or {"host", "process", "since"} == json.loads(content).keys()
    except FileNotFoundError:
        return True
    except (OSError, ValueError, AttributeError):
        return False


def _lock(path: Path) -> int | None:
    """The descriptor of a locked file, created if needed; None if another process has locked it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            if not _locked(handle, fcntl.LOCK_EX):
                os.close(handle)
                return None
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:  # its last holder removed it before we had the lock
            pass
        os.close(handle)


def _locked(handle: int, kind: int) -> bool:
    """Lock an open file if nobody holds it; whether that was so."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def _unlock(path: Path, handle: int) -> None:
    """Remove a file while its lock is held, so that whoever waits for that lock sees that it is worth nothing."""
    path.unlink(missing_ok=True)
    os.close(handle)


def _is_locked(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _locked(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)

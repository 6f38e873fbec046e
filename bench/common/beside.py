"""Work that a forked copy of this process does, while this one goes on."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

T = TypeVar("T")


def _send(sender: Connection, work: Callable[[], object]) -> None:
    """Send the result, or nothing: an error is raised where the work is then done again."""
    with contextlib.suppress(BaseException):
        sender.send(work())


def _can_copy() -> bool:
    """Whether this process may be copied, and the copy holds no lock of another thread."""
    daemonic = multiprocessing.current_process().daemon
    return sys.platform == "linux" and not daemonic and threading.active_count() == 1


class Beside(Generic[T]):
    """Some work, begun in a copy of this process. Its result is the same wherever it is done.

    If the copy fails, the work is done by this process when its result is asked for. So it is where there is one core,
    and where a copy is not safe or not allowed: on other systems than Linux, where other threads run, as in a notebook,
    and in a daemonic process, as those of multiprocessing.Pool are.

    Args:
        work: The work. What it returns is sent from process to process.
    """

    def __init__(self, work: Callable[[], T]):
        self.work = work
        self.receiver = None
        if (os.cpu_count() or 1) > 1 and _can_copy():
            context = multiprocessing.get_context("fork")
            self.receiver, sender = context.Pipe(duplex=False)
            self.copy = context.Process(target=_send, args=(sender, work), daemon=True)
            self.copy.start()
            sender.close()

    def result(self) -> T:
        """The result, once it is there."""
        if self.receiver is not None:
            try:
                return self.receiver.recv()
            except EOFError:
                pass
            finally:
                self.receiver.close()
                self.copy.join()
        return self.work()

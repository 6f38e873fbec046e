"""Errors that are the user's to mend: one clear line and exit code 2."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from bench.common.text import MOST, plain

NAME = 100  # characters of the name of an exception
INTERRUPTED = 130  # the exit code of a command that was stopped from the keyboard, by convention 128 + SIGINT
TERMINATED = 143  # and of one that was told to end, 128 + SIGTERM


class UsageError(Exception):
    """A request that cannot be carried out; the message says what was got, what was expected and what is available.

    Args:
        message: One line.
        key: The setting that is wrong, as the path of its name in a study file; empty if it is none.
    """

    def __init__(self, message: str, key: tuple[str, ...] = ()):
        super().__init__(message)
        self.key = key


class InterruptedStudyError(Exception):
    """A study that was stopped before its last run; what is finished is kept. code: the exit code."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message, code)
        self.code = code

    def __str__(self) -> str:
        return str(self.args[0])


class TerminatedError(KeyboardInterrupt):
    """The process was told to end (SIGTERM), which is to be taken as an interrupt from the keyboard is."""


class StoppedError(Exception):
    """A run that ended early: what is to be told of it, and the exit code."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def unknown(kind: str, name: str, available: Iterable[str]) -> UsageError:
    """An error for an unknown name, with the nearest known one."""
    names = list(available)
    near = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f" - did you mean {near[0]!r}?" if near else ""
    return UsageError(f"unknown {kind} {name!r}{hint} (available: {', '.join(names)})")


def describe(error: BaseException) -> str:
    """An exception as plain text, whatever its `str` does."""
    try:
        text = plain(str(error))
    except BaseException as unreadable:
        text = f"its message cannot be read ({type(unreadable).__name__})"
    name = plain(type(error).__name__, NAME)
    return f"{name}: {text}"[:MOST] if text else name

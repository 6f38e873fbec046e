"""The two ways in which a check ends early."""

from __future__ import annotations


class FailedError(Exception):
    """The method fails the check. The message says what was seen and what was expected."""


class SkippedError(Exception):
    """The check does not apply to the method. The message says why."""

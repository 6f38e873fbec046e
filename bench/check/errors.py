"""How a check ends early."""

from __future__ import annotations


class FailedError(Exception):
    """A duty that is not met: what was seen, and what was expected."""


class SkippedError(Exception):
    """A duty that makes no sense for a method; the message says why."""

"""The conformance kit: whether a method keeps the contract of `methods.base`, and is measured fairly by the harness.

A duty is a function that drives short fits of a method and returns what it saw, or raises `FailedError`.
"""

from bench.check.duties import DUTIES, chosen
from bench.check.kit import Outcome, run
from bench.check.output import show
from bench.check.subject import Subject

__all__ = ["DUTIES", "Outcome", "Subject", "chosen", "run", "show"]

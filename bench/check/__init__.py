"""The conformance kit: whether a method keeps the contract of `methods.contract.method`, and is measured fairly by the harness.

A duty is a function that drives short fits of a method and returns what it saw, or raises `FailedError`.
"""

from bench.check.checks import DUTIES, chosen
from bench.check.kit import Outcome, run
from bench.check.method_under_test import Subject

__all__ = ["DUTIES", "Outcome", "Subject", "chosen", "run"]

"""The conformance checks: whether a method keeps the contract of `methods.contract.method` and is measured correctly.

A check runs short fits of a method. It returns a sentence about what it saw, or raises `FailedError`.
"""

from bench.check.checks import CHECKS, chosen
from bench.check.conformance import Outcome, run
from bench.check.method_under_test import MethodUnderTest

__all__ = ["CHECKS", "MethodUnderTest", "Outcome", "chosen", "run"]

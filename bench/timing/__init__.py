"""The noise floor of time comparisons: fits of several methods in random order, each method also against itself."""

from bench.timing.output import write
from bench.timing.run import FitFailedError, Settings, run

__all__ = ["FitFailedError", "Settings", "run", "write"]

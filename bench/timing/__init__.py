"""The noise floor of time comparisons: fits of several methods in random order, each method also against itself."""

from bench.timing.output import bar, lines, show, silent, write
from bench.timing.run import FitFailedError, Settings, run

__all__ = ["FitFailedError", "Settings", "bar", "lines", "run", "show", "silent", "write"]

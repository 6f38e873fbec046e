"""`python -m bench`."""

import atexit
import gc
import sys
from pathlib import Path

# Python puts the working directory first. A folder there that is called datasets or methods would hide the package.
if Path(sys.path[0] or ".").resolve() != Path(__file__).resolve().parents[1]:
    del sys.path[0]

from bench.cli.app import main

atexit.register(gc.freeze)  # else the interpreter ends with a search of all that torch and pandas hold for cycles
main()

"""`python -m bench`."""

import atexit
import gc
import sys
from pathlib import Path

# Python puts the working directory first. A folder there that is called datasets or methods would hide the package.
if Path(sys.path[0] or ".").resolve() != Path(__file__).resolve().parents[1]:
    del sys.path[0]

OURS = ("bench", "methods", "datasets")

atexit.register(gc.freeze)  # else the interpreter ends with a search of all that torch and pandas hold for cycles
try:
    from bench.cli.app import main

    main()
except ModuleNotFoundError as error:
    if (error.name or OURS[0]).partition(".")[0] in (*OURS, *sys.stdlib_module_names):
        raise
    sys.stderr.write(f"error: {error.name} is not installed; `pip install -c constraints.txt -e .` installs it\n")
    sys.exit(2)

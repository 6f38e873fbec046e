"""How long the command line takes to answer."""

import subprocess
import sys


class Startup:
    """A fresh interpreter per sample, as a user at a shell meets it."""

    def time_help(self) -> None:
        subprocess.run([sys.executable, "-m", "bench", "--help"], check=True, stdout=subprocess.DEVNULL)

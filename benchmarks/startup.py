"""How long the command line takes to answer."""

import subprocess
import sys


class Startup:
    """A fresh interpreter per sample, as a user at a shell meets it."""

    def time_help(self) -> None:
        answer("--help")

    def time_usage_error(self) -> None:
        answer("compare", "--methods", "mpaa", exit_code=2)

    def time_list(self) -> None:
        answer("list")


def answer(*arguments: str, exit_code: int = 0) -> None:
    """Run the command line; raises RuntimeError for another exit code."""
    done = subprocess.run([sys.executable, "-m", "bench", *arguments], capture_output=True, check=False)
    if done.returncode != exit_code:
        raise RuntimeError(f"{arguments} ended with {done.returncode}: {done.stderr.decode()}")

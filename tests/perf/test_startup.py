"""How soon the command line answers, as a ratio to what the interpreter and click take by themselves."""

import os
import subprocess
import sys
import time

import pytest

BARE = ("-c", "import click")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """An environment in which modules stay compiled, as they do once a package is installed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("compiled"))}


def seconds(arguments, environment):
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=False)
    return time.perf_counter() - start


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [(("--help",), 2.0), (("compere",), 2.0), (("compare", "-m", "mpaa"), 5.0), (("list",), 8.0)],
    ids=["help", "command", "method", "list"],
)
def test_the_command_line_answers_at_once(arguments, limit, compiled, fastest):
    """In turns, and without the first of each, which compiles."""
    commands = (BARE, ("-m", "bench", *arguments))

    def measure():
        return [seconds(command, compiled) for command in commands]

    measure()
    bare, answer = fastest(measure, lambda bare, answer: answer <= limit * bare, least=3)
    assert answer <= limit * bare
